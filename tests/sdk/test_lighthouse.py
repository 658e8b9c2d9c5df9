"""Lighthouse, driven by Tencent Cloud's own SDK. A bind shuts a running machine down, and we start it again."""

import unittest

from tencentcloud.lighthouse.v20200324 import lighthouse_client, models

from tencent import Tencent


class Lighthouse(Tencent, unittest.TestCase):
    PROVIDER = "tencent-lighthouse"
    models = models
    Client = lighthouse_client.LighthouseClient
    UNKNOWN_INSTANCE = "ResourceNotFound.InstanceIdNotFound"
    DUPLICATE_NAME = "InvalidParameterValue.DuplicateParameterValue"
    DUPLICATE_KEY = "InvalidParameterValue.KeyPairPublicKeyDuplicated"
    MALFORMED_KEY = "InvalidParameterValue.KeyPairPublicKeyMalformed"
    BOUND = "ResourceInUse.KeyPairInUse"
    WINDOWS = "UnsupportedOperation.WindowsNotAllowToAssociateKeyPair"

    def windows(self, instance):
        return instance.PlatformType == "WINDOWS"

    def import_key(self, name, public_key):
        return self.call("ImportKeyPair", KeyName=name, PublicKey=public_key).KeyId

    def bind(self, handle, ids):
        self.rekey("AssociateInstancesKeyPairs", handle, ids)

    def unbind(self, handle, ids):
        self.rekey("DisassociateInstancesKeyPairs", handle, ids)

    def rekey(self, action, handle, ids):
        running = [row.id for row in self.rows(ids) if row.state == "RUNNING"]
        rows = self.done(ids, action, KeyIds=[handle])
        self.assertEqual({row.state for row in rows.values()}, {"STOPPED"}, "a running machine is shut down")
        started = self.done(running, "StartInstances")
        self.assertEqual({row.state for row in started.values()}, {"RUNNING"})

    def test_a_pair_that_is_bound_already_and_one_that_is_not(self):
        row = next(row for row in self.fleet() if row.keys and row.state == "STOPPED")
        self.assertEqual(
            self.code(lambda: self.raw_bind(row.keys[0], [row.id])), "UnsupportedOperation.KeyPairBindDuplicate"
        )
        handle = self.import_key("rk_other_0", self.keys.make())
        self.assertEqual(
            self.code(lambda: self.call("DisassociateInstancesKeyPairs", InstanceIds=[row.id], KeyIds=[handle])),
            "UnsupportedOperation.KeyPairNotBoundToInstance",
        )


if __name__ == "__main__":
    unittest.main()
