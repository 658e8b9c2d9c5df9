"""ECS, driven by Alibaba Cloud's own SDK. A bound key works after a boot: we reboot, and see it by StartTime."""

import json
import unittest

from alibabacloud_ecs20140526 import models
from alibabacloud_ecs20140526.client import Client
from alibabacloud_tea_openapi.exceptions import AlibabaCloudException
from alibabacloud_tea_openapi.utils_models import Config

from contract import Contract, Row


class Ecs(Contract, unittest.TestCase):
    PROVIDER = "alibaba-ecs"
    WRONG_SECRET = "SignatureDoesNotMatch"
    TOO_MANY = "InstanceKeyPairLimitExceeded"
    UNKNOWN_INSTANCE = "InvalidInstanceIds.ValueNotSupported"
    DUPLICATE_NAME = "KeyPair.AlreadyExist"
    MALFORMED_KEY = "InvalidPublicKeyBody.Malformed"
    BOUND = "InvalidParameter.KeypairAlreadyAttachedInstance"

    def connect(self, cloud, secret):
        id = cloud["access_key_id"]
        config = Config(access_key_id=id, access_key_secret=secret, endpoint=self.address, protocol="http")
        return Client(config)

    def code(self, call):
        try:
            call()
        except AlibabaCloudException as error:
            self.assertTrue(error.request_id, "an error names its request")
            return error.code
        return None

    def call(self, action, model, **fields):
        """Calls an action with the SDK's model of its request, and returns the body."""
        request = getattr(models, model + "Request")(region_id=self.cloud["region"], **fields)
        return getattr(self.client, action)(request).body

    def row(self, instance):
        keys = [instance.key_pair_name] if instance.key_pair_name else []
        return Row(instance.instance_id, instance.status, keys, instance.ostype == "windows", instance.start_time)

    def page(self, tags, size, after):
        tag = [models.DescribeInstancesRequestTag(key=key, value=value) for key, value in tags.items()]
        answer = self.call(
            "describe_instances", "DescribeInstances", tag=tag or None, max_results=size, next_token=after
        )
        return [self.row(instance) for instance in answer.instances.instance], answer.next_token or None

    def rows(self, ids):
        answer = self.call("describe_instances", "DescribeInstances", instance_ids=json.dumps(ids), max_results=100)
        return [self.row(instance) for instance in answer.instances.instance]

    def import_key(self, name, public_key):
        answer = self.call("import_key_pair", "ImportKeyPair", key_pair_name=name, public_key_body=public_key)
        return answer.key_pair_name

    def find(self, name):
        answer = self.call(
            "describe_key_pairs", "DescribeKeyPairs", key_pair_name=name, include_public_key=True, page_size=50
        )
        found = [(pair.key_pair_name, pair.public_key) for pair in answer.key_pairs.key_pair]
        return [pair for pair in found if pair[0] == name]

    def raw_bind(self, handle, ids):
        return self.call("attach_key_pair", "AttachKeyPair", key_pair_name=handle, instance_ids=json.dumps(ids))

    def too_many(self, handle, ids):
        self.raw_bind(handle, ids[:51])

    def results(self, answer):
        """The result of each instance: None if it is done, else the code."""
        def result(one):
            # The model says strings, the samples show booleans and numbers too.
            good = str(one.success).lower() == "true" and str(one.code) == "200"
            return None if good else one.code

        results = {one.instance_id: result(one) for one in answer.results.result}
        failed = sum(1 for code in results.values() if code)
        self.assertEqual((int(answer.total_count), int(answer.fail_count)), (len(results), failed))
        return results

    def bind(self, handle, ids):
        self.assertEqual(self.results(self.raw_bind(handle, ids)), dict.fromkeys(ids))
        self.reboot(ids)

    def unbind(self, handle, ids):
        answer = self.call("detach_key_pair", "DetachKeyPair", key_pair_name=handle, instance_ids=json.dumps(ids))
        self.assertEqual(self.results(answer), dict.fromkeys(ids))

    def reboot(self, ids):
        """Reboots those that run and waits until each has booted: StartTime is another one. It has no seconds."""
        before = {row.id: row for row in self.rows(ids) if row.state == "RUNNING"}
        answer = self.call("reboot_instances", "RebootInstances", instance_id=list(before))
        responses = answer.instance_responses.instance_response
        self.assertEqual({(one.instance_id, str(one.code)) for one in responses}, {(id, "200") for id in before})
        self.wait_rows(
            "the reboot", list(before), lambda row: row.state == "RUNNING" and row.mark != before[row.id].mark
        )

    def delete_key(self, handle):
        self.call("delete_key_pairs", "DeleteKeyPairs", key_pair_names=json.dumps([handle]))

    def test_a_windows_instance_fails_alone(self):
        rows = self.fleet()
        windows = next(row.id for row in rows if row.windows)
        # Not one of those that the life of a key pair is told on.
        linux = [row.id for row in rows if not row.windows and row.state == "RUNNING"][9]
        handle = self.import_key("rk_windows_0", self.keys.make())
        answer = self.raw_bind(handle, [windows, linux])
        self.assertEqual(
            self.results(answer), {windows: "DependencyViolation.WindowsInstance", linux: None}, "in part, with 200"
        )
        self.assertEqual({id: keys for id, (_, keys) in self.truth([windows, linux]).items()}, {windows: [], linux: [handle]})

    def test_the_tagged_instances_are_found_by_their_tags_alone(self):
        found, after = set(), None
        tag = [models.ListTagResourcesRequestTag(key=key, value=value) for key, value in self.cloud["tags"].items()]
        while True:
            answer = self.call(
                "list_tag_resources", "ListTagResources", resource_type="instance", tag=tag, next_token=after
            )
            found |= {row.resource_id for row in answer.tag_resources.tag_resource}
            after = answer.next_token
            if not after:
                break
        self.assertEqual(found, {row.id for row in self.fleet()})


if __name__ == "__main__":
    unittest.main()
