"""A `rekeyd sim` of one's own, for a test class: started on ports that the system hands out, and ended with the class.

The binary is named by REKEYD_BIN. It must never be given real credentials, and no test talks to anything but loopback.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request

# A proxy that the environment names must not stand between a test and loopback.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

# How long anything may take that the simulator does in under a second. Generous: the machine may be busy.
PATIENCE = 60.0


def wait_for(what, look, patience=PATIENCE):
    """Calls `look` until it returns something true, and returns that; fails saying `what` was waited for."""
    deadline = time.monotonic() + patience
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:.0f} s in vain: {what}")
        time.sleep(0.02)


class Simulator:
    """A running simulator with four clouds."""

    def __init__(self, instances):
        self.directory = tempfile.mkdtemp(prefix="rekeyd-sdk-")
        ready_file = os.path.join(self.directory, "ready.json")
        log_file = os.path.join(self.directory, "log")
        command = [os.environ["REKEYD_BIN"], "sim", "--instances", str(instances), "--ready-file", ready_file]
        # Slow enough that a reader sees what lies between two states, quick enough for a test.
        command += ["--seed", "7", "--latency", "2ms", "--operation-time", "500ms"]
        with open(log_file, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            def ready():
                if self.process.poll() is not None:
                    with open(log_file, encoding="utf-8") as said:
                        raise AssertionError(f"the simulator ended with {self.process.returncode}: {said.read()}")
                return os.path.exists(ready_file)

            wait_for("the simulator's ready file", ready)
            with open(ready_file, encoding="utf-8") as file:
                self.ready = json.load(file)
        except BaseException:
            self.stop()
            raise

    def stop(self):
        """Ends the process and leaves nothing behind."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def cloud(self, provider):
        """What the ready file says of a cloud."""
        return next(cloud for cloud in self.ready["clouds"] if cloud["provider"] == provider)

    def _control(self, page):
        with urllib.request.urlopen(f"{self.ready['control'].rstrip('/')}/{page}", timeout=PATIENCE) as answer:
            return json.load(answer)

    def state(self, provider):
        """The truth of a cloud: its instances, key pairs and calls."""
        return next(cloud for cloud in self._control("state")["clouds"] if cloud["provider"] == provider)

    def violations(self, provider):
        """The rules that clients of a cloud broke."""
        return [broken for broken in self._control("violations")["violations"] if broken["provider"] == provider]


class Keys:
    """OpenSSH key pairs from ssh-keygen; only the public halves are kept."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="rekeyd-sdk-")

    def make(self):
        """A new RSA public key, `ssh-rsa BASE64`, without a comment."""
        path = os.path.join(self.directory, "key")
        command = ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-C", "", "-f", path]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        with open(path + ".pub", encoding="utf-8") as file:
            line = file.read().strip()
        os.remove(path)
        os.remove(path + ".pub")
        return line

    def stop(self):
        """Leaves nothing behind."""
        shutil.rmtree(self.directory, ignore_errors=True)
