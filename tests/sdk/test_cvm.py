"""CVM, driven by Tencent Cloud's own SDK. A bind wants stopped machines: we stop and start those that ran."""

import unittest

from tencentcloud.cvm.v20170312 import cvm_client, models

from tencent import Tencent


class Cvm(Tencent, unittest.TestCase):
    PROVIDER = "tencent-cvm"
    models = models
    Client = cvm_client.CvmClient
    UNKNOWN_INSTANCE = "InvalidInstanceId.NotFound"
    DUPLICATE_NAME = "InvalidKeyPairName.Duplicate"
    DUPLICATE_KEY = "InvalidPublicKey.Duplicate"
    MALFORMED_KEY = "InvalidPublicKey.Malformed"
    BOUND = "InvalidParameterValue.KeyPairNotSupported"
    WINDOWS = "UnsupportedOperation.InstanceOsWindows"

    def windows(self, instance):
        return "windows" in instance.OsName.lower()

    def import_key(self, name, public_key):
        return self.call("ImportKeyPair", KeyName=name, PublicKey=public_key, ProjectId=0).KeyId

    def bind(self, handle, ids):
        self.rekey("AssociateInstancesKeyPairs", handle, ids)

    def unbind(self, handle, ids):
        self.rekey("DisassociateInstancesKeyPairs", handle, ids)

    def rekey(self, action, handle, ids):
        running = [row.id for row in self.rows(ids) if row.state == "RUNNING"]
        stopped = self.done(running, "StopInstances", StopType="SOFT")
        self.assertEqual({row.state for row in stopped.values()}, {"STOPPED"})
        bound = self.done(ids, action, KeyIds=[handle])
        self.assertEqual({row.state for row in bound.values()}, {"STOPPED"}, "a bind starts nobody")
        started = self.done(running, "StartInstances")
        self.assertEqual({row.state for row in started.values()}, {"RUNNING"})

    def test_a_bind_on_a_running_instance_is_refused_without_force(self):
        running, _ = self.running_and_stopped()
        handle = self.import_key("rk_running_0", self.keys.make())
        self.assertEqual(
            self.code(lambda: self.raw_bind(handle, running)), "UnsupportedOperation.InstanceStateRunning"
        )

    def test_a_bind_with_force_stops_binds_and_starts_again(self):
        row = [row for row in self.fleet() if not row.windows and row.state == "RUNNING"][2]
        handle = self.import_key("rk_force_0", self.keys.make())
        self.done([row.id], "AssociateInstancesKeyPairs", KeyIds=[handle], ForceStop=True)
        self.assertEqual(self.truth([row.id]), {row.id: ("RUNNING", [handle])})


if __name__ == "__main__":
    unittest.main()
