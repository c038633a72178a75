"""The manifests of examples/cluster: as their APIs are described, and with a command that this program takes."""

import json

import hcl2
import msgspec
import pytest
import yaml
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from lightkube.models.batch_v1 import Job
from stores import CHECKOUT
from typer.testing import CliRunner

from parallelhassnes.cli.app import app

FOLDER = CHECKOUT / "examples" / "cluster"


def kubernetes():
    return yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())


def nomad():
    return hcl2.loads((FOLDER / "nomad.hcl").read_text())


def aws_batch():
    return json.loads((FOLDER / "aws-batch.json").read_text())


def unknown(document, known, place=""):
    """Places of a document that are not in what a model has kept of it."""
    if isinstance(document, dict):
        return [f"{place}.{name}" for name in document if name not in known] + [
            line
            for name in document
            if name in known
            for line in unknown(document[name], known[name], f"{place}.{name}")
        ]
    if isinstance(document, list):
        return [line for n, each in enumerate(document) for line in unknown(each, known[n], f"{place}[{n}]")]
    return []


def test_kubernetes_takes_it():
    document = kubernetes()
    assert unknown(document, msgspec.to_builtins(msgspec.convert(document, Job))) == []
    document["spec"]["template"]["spec"]["containers"][0]["enviroment"] = []
    kept = msgspec.to_builtins(msgspec.convert(document, Job))
    assert unknown(document, kept) == [".spec.template.spec.containers[0].enviroment"]
    document["spec"]["parallelism"] = "three"
    with pytest.raises(msgspec.ValidationError, match=r"Expected `int \| null`, got `str` - at `\$.spec.parallelism`"):
        msgspec.convert(document, Job)


def test_aws_batch_takes_it():
    service = ServiceModel(Loader().load_service_model("batch", "service-2"))
    shape = service.operation_model("RegisterJobDefinition").input_shape
    assert not ParamValidator().validate(aws_batch(), shape).generate_report()
    bad = aws_batch() | {"retries": 3}
    assert 'Unknown parameter in input: "retries"' in ParamValidator().validate(bad, shape).generate_report()


def commands():
    (container,) = kubernetes()["spec"]["template"]["spec"]["containers"]
    yield "kubernetes", container["command"] + container["args"], container["volumeMounts"][0]["mountPath"]
    found = (FOLDER / "nomad.hcl").read_text()
    args = json.loads(found.partition("args    = ")[2].partition("\n")[0])
    yield "nomad", ["parallelhassnes", *args], found.partition('destination = "')[2].partition('"')[0]
    properties = aws_batch()["containerProperties"]
    yield "aws-batch", properties["command"], properties["mountPoints"][0]["containerPath"]


@pytest.mark.parametrize(("name", "argv", "mounted"), list(commands()), ids=["kubernetes", "nomad", "aws-batch"])
def test_the_command_is_one_of_ours_and_its_root_is_mounted(name, argv, mounted, tmp_path):
    assert argv[0] == "parallelhassnes"
    arguments = [str(tmp_path / "none") if each == mounted else each for each in argv[1:]]
    assert arguments != argv[1:]
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code
    assert "is not a folder" in str(refused.exception), "the options are taken, and the root is looked for"


def test_nomad_is_hcl_with_one_group():
    text = str(nomad())
    assert "multi-node-multi-writer" in text
    assert "90s" in text
