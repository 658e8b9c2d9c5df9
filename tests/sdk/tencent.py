"""How Tencent Cloud's Python SDK does what the contract asks: what Lighthouse and CVM have in common.

An operation is over when the instance shows our call's request id as its latest operation, and that is not OPERATING.
"""

from tencentcloud.common import credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile

from contract import Contract, Row
from simulator import wait_for


class Tencent(Contract):
    """Mixed into each of the two; `models` and `Client` are the SDK's."""

    models = None
    Client = None
    WRONG_SECRET = "AuthFailure.SignatureFailure"
    TOO_MANY = "InvalidParameterValue.LimitExceeded"

    def connect(self, cloud, secret):
        profile = ClientProfile(httpProfile=HttpProfile(protocol="http", endpoint=self.address))
        return self.Client(credential.Credential(cloud["access_key_id"], secret), cloud["region"], profile)

    def code(self, call):
        try:
            call()
        except TencentCloudSDKException as error:
            self.assertTrue(error.get_request_id(), "an error names its request")
            return error.get_code()
        return None

    def call(self, action, **fields):
        """Calls an action with the SDK's model of its request."""
        request = getattr(self.models, action + "Request")()
        for name, value in fields.items():
            self.assertTrue(hasattr(request, name), f"{action} has no {name}")
            setattr(request, name, value)
        return getattr(self.client, action)(request)

    def filter(self, name, *values):
        made = self.models.Filter()
        made.Name, made.Values = name, list(values)
        return made

    def windows(self, instance):
        raise NotImplementedError

    def row(self, instance):
        mark = (instance.LatestOperationRequestId, instance.LatestOperationState)
        keys = instance.LoginSettings.KeyIds or []
        return Row(instance.InstanceId, instance.InstanceState, keys, self.windows(instance), mark)

    def page(self, tags, size, after):
        offset = after or 0
        filters = [self.filter(f"tag:{key}", value) for key, value in tags.items()]
        answer = self.call("DescribeInstances", Filters=filters, Offset=offset, Limit=size)
        end = offset + len(answer.InstanceSet)
        return [self.row(instance) for instance in answer.InstanceSet], end if end < answer.TotalCount else None

    def rows(self, ids):
        answer = self.call("DescribeInstances", InstanceIds=ids, Limit=100)
        return [self.row(instance) for instance in answer.InstanceSet]

    def done(self, ids, action, **fields):
        """Calls an action on instances and waits until its operation is over on each."""
        request_id = self.call(action, InstanceIds=ids, **fields).RequestId

        def over(row):
            self.assertNotEqual(row.mark, (request_id, "FAILED"))
            return row.mark == (request_id, "SUCCESS")

        return self.wait_rows(f"{action} on {ids}", ids, over)

    def find(self, name):
        answer = self.call("DescribeKeyPairs", Filters=[self.filter("key-name", name)], Limit=100)
        return [(pair.KeyId, pair.PublicKey) for pair in answer.KeyPairSet if pair.KeyName == name]

    def raw_bind(self, handle, ids):
        self.call("AssociateInstancesKeyPairs", InstanceIds=ids, KeyIds=[handle])

    def too_many(self, handle, ids):
        self.raw_bind(handle, ids[:101])

    def delete_key(self, handle):
        self.call("DeleteKeyPairs", KeyIds=[handle])

    def test_a_batch_with_a_windows_instance_is_refused(self):
        rows = self.fleet()
        windows = [row.id for row in rows if row.windows][:1]
        stopped = [row.id for row in rows if row.state == "STOPPED"][:1]
        handle = self.import_key("rk_windows_0", self.keys.make())
        self.assertEqual(self.code(lambda: self.raw_bind(handle, stopped + windows)), self.WINDOWS)
        self.assertEqual(self.truth(windows)[windows[0]][1], [], "and the Windows instance is on no pair")

    def test_a_pair_tells_on_which_instances_it_is(self):
        bound = [row for row in self.fleet() if row.keys]
        handle = bound[0].keys[0]
        told = wait_for("the pair", lambda: self.call("DescribeKeyPairs", KeyIds=[handle]).KeyPairSet)[0]
        truth = [row["id"] for row in self.state()["instances"] if handle in row["key_pairs"]]
        self.assertEqual(sorted(told.AssociatedInstanceIds), sorted(truth))
