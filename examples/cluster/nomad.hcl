# Three runners of one root, as a batch job. Fill in: image, volume (multi-node-multi-writer), user. `nomad job run` it; the
# tasks end by themselves after ten minutes without work. See docs/cluster.md.
job "parallelhassnes" {
  type = "batch"

  group "runners" {
    count = 3

    spread {
      attribute = "${node.unique.id}"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    restart {
      attempts = 0
      mode     = "fail"
    }

    volume "root" {
      type            = "csi"
      source          = "evals"
      access_mode     = "multi-node-multi-writer"
      attachment_mode = "file-system"
    }

    task "runner" {
      driver       = "docker"
      user         = "1000:1000"
      kill_signal  = "SIGTERM"
      kill_timeout = "90s"

      config {
        image   = "registry.example/parallelhassnes:2"
        command = "parallelhassnes"
        args    = ["runner", "--root", "/srv/evals", "--capacity", "4", "--idle", "600"]
      }

      env {
        PARALLELHASSNES_RUNNER = "nomad-${NOMAD_SHORT_ALLOC_ID}"
        HOME                   = "/tmp"
      }

      volume_mount {
        volume      = "root"
        destination = "/srv/evals"
      }

      resources {
        cpu    = 8000
        memory = 8192
      }
    }
  }
}
