"""The kernel's calls, settings and rights: what a program in a sandbox may not, and by which word it is refused."""

import pytest

REFUSED = {
    "mount",
    "umount2",
    "bpf",
    "userfaultfd",
    "perf_event_open",
    "keyctl",
    "add_key",
    "request_key",
    "kexec_load",
    "init_module",
    "finit_module",
    "open_by_handle_at",
    "pivot_root",
    "swapon",
    "reboot",
    "acct",
    "syslog",
    "clock_settime",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "open_tree",
    "move_mount",
    "fsopen",
    "fsmount",
    "mount_setattr",
    "unshare(user)",
    "unshare(mount)",
    "clone(user)",
    "clone(mount)",
    "setns(mount)",
    "setns(any)",
}
CAPABILITIES = "00000000000404fb"
"""chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service, sys_chroot."""


def test_calls_are_refused_by_the_filter(attacked):
    expected = dict.fromkeys(REFUSED, "EPERM")
    expected |= {"clone3": "ENOSYS", "newer than the filter": "ENOSYS"}
    assert attacked["system_calls"] == expected


def test_sockets_to_the_hypervisor_and_to_the_kernels_crypto(attacked):
    assert attacked["sockets"] == {"vsock": "EPERM", "alg": "EPERM", "packet": "EPERM"}


def test_settings_of_the_kernel_are_read_only(attacked):
    assert set(attacked["kernel_settings"].values()) == {"EROFS"}, attacked["kernel_settings"]


def test_proc_is_masked(attacked):
    found = attacked["other_files_of_proc"]
    for path in ("/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"):
        assert found.get(path, "EROFS") == "EROFS"
    for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"):
        assert found[path] in (0, "ENOENT"), path


def test_few_capabilities_and_no_more_ever(attacked):
    found = attacked["capabilities"]
    assert found == {
        "CapInh": "0000000000000000",
        "CapPrm": CAPABILITIES,
        "CapEff": CAPABILITIES,
        "CapBnd": CAPABILITIES,
        "CapAmb": "0000000000000000",
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }


def test_root_is_never_the_hosts(attacked, row):
    """The number that root has outside, as the kernel says, is in the record."""
    (inside, outside, count), *more = attacked["users"]["map"]
    assert (inside, more, attacked["users"]["uid"]) == ("0", [], 0)
    assert attacked["trial"]["record"]["user_namespace"] is True
    if row.who == "root":
        assert int(outside) >= 1 << 30
        assert count == "65536"
        assert attacked["trial"]["record"]["host_uid"] == int(outside)
    else:
        assert count == "1"
        assert attacked["trial"]["record"]["host_uid"] == attacked["trial"]["uid"]


def test_no_devices_no_file_capabilities_no_names(attacked):
    """In the engine ``unshare`` devices are refused by Landlock before the want of a capability is looked at."""
    record = attacked["trial"]["record"]
    devices = "EACCES" if record["landlock"] and record["engine"] == "unshare" else "EPERM"
    expected = {"mknod": devices, "setfcap": "EPERM", "sethostname": "EPERM"}
    assert attacked["devices_and_rights"] == expected


def test_set_id_bits_do_not_outlive_the_trial(attacked):
    """Whatever names the file, and whoever owned it: it is ours afterwards, and gives nobody rights."""
    assert attacked["set_id_files"] == "0o6755"
    trial = attacked["trial"]
    for name in ("artifacts/rooted", "artifacts/second"):
        assert trial["left"][name] == ["-rwxr-xr-x", trial["uid"]]
    assert {owner for _, owner in trial["left"].values()} == {trial["uid"]}


@pytest.mark.parametrize("command", ["ls -d /proc/[0-9]*"])
def test_one_proc_with_its_own_processes(attacked, command):
    assert attacked["nested_proc"]["pids"] < 10
