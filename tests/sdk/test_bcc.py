"""BCC, driven by Baidu AI Cloud's own SDK. The cloud reboots a running machine by itself some time after a bind."""

import unittest

from baidubce.auth.bce_credentials import BceCredentials
from baidubce.bce_client_configuration import BceClientConfiguration
from baidubce.exception import BceHttpClientError
from baidubce.retry.retry_policy import NoRetryPolicy
from baidubce.services.bcc.bcc_client import BccClient

from contract import Contract, Row
from simulator import wait_for


class Bcc(Contract, unittest.TestCase):
    PROVIDER = "baidu-bcc"
    LIST_ACTION = "ListInstances"
    WRONG_SECRET = "SignatureDoesNotMatch"
    # No page names a code for it.
    TOO_MANY = "InappropriateJSON"
    UNKNOWN_INSTANCE = "Keypair.InstanceNotExist"
    DUPLICATE_KEY = "Keypair.KeypairPublicKeyExist"
    MALFORMED_KEY = "Keypair.PublicKeyFormatInvalid"
    BOUND = "Keypair.DeleteKeypairInUse"

    def connect(self, cloud, secret):
        credentials = BceCredentials(cloud["access_key_id"], secret)
        # By itself the SDK repeats what failed, which would blur what the simulator counts.
        return BccClient(
            BceClientConfiguration(credentials=credentials, endpoint=cloud["endpoint"], retry_policy=NoRetryPolicy())
        )

    def code(self, call):
        try:
            call()
        except BceHttpClientError as error:
            self.assertTrue(error.request_id, "an error names its request")
            return error.code
        return None

    def row(self, instance):
        keys = [instance.keypair_id] if instance.keypair_id else []
        return Row(instance.id, instance.status, keys, "windows" in instance.os_name.lower())

    def page(self, tags, size, after):
        wanted = ",".join(f"{key}:{value}" for key, value in tags.items())
        answer = self.client.list_instances(marker=after, max_keys=size, tags=wanted or None)
        return [self.row(instance) for instance in answer.instances], answer.next_marker if answer.is_truncated else None

    def rows(self, ids):
        return [self.row(instance) for instance in self.client.list_instance_by_instance_ids(ids).instances]

    def import_key(self, name, public_key):
        return self.client.import_keypair(name, "made by a test", public_key).keypair.keypair_id

    def find(self, name):
        return [(pair.keypair_id, pair.public_key) for pair in self.client.list_keypairs(name=name).keypairs]

    def raw_bind(self, handle, ids):
        return self.client.attach_keypair(handle, ids)

    def too_many(self, handle, ids):
        self.client.batch_stop_instance(ids[:101])

    def bind(self, handle, ids):
        running = [row.id for row in self.rows(ids) if row.state == "RUNNING"]
        self.assertEqual(self.raw_bind(handle, ids).failed_instance_id_list, [])
        self.see_rebooted(running)

    def unbind(self, handle, ids):
        running = [row.id for row in self.rows(ids) if row.state == "RUNNING"]
        self.assertEqual(self.client.detach_keypair(handle, ids).failed_instance_id_list, [])
        self.see_rebooted(running)

    def see_rebooted(self, ids):
        """There is no boot time and no operation id: who was seen not running, and runs, has booted."""
        down = set()

        def look():
            rows = self.rows(ids)
            down.update(row.id for row in rows if row.state != "RUNNING")
            return down == set(ids) and all(row.state == "RUNNING" for row in rows)

        wait_for(f"the cloud's own reboot of {ids}", look)

    def delete_key(self, handle):
        self.client.delete_keypair(handle)

    def test_a_batch_is_stopped_and_started(self):
        ids = [row.id for row in self.fleet() if not row.windows and row.state == "RUNNING"][10:13]
        self.client.batch_stop_instance(ids)
        self.wait_rows("the stop", ids, lambda row: row.state == "STOPPED")
        self.assertEqual(
            self.code(lambda: self.client.batch_stop_instance(ids)), "Instance.StopInstanceOperationForbidden"
        )
        self.client.batch_start_instance(ids)
        self.wait_rows("the start", ids, lambda row: row.state == "RUNNING")

    def test_a_windows_instance_is_refused(self):
        windows = next(row.id for row in self.fleet() if row.windows)
        handle = self.import_key("rk_windows_0", self.keys.make())
        self.assertEqual(self.code(lambda: self.raw_bind(handle, [windows])), "Keypair.UnsupportOsType")


if __name__ == "__main__":
    unittest.main()
