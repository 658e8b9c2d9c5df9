"""CVM by its legacy endpoint, driven by the vendor's SDK of that time: the contract of CVM once more, by GET and by POST,
signed by HmacSHA1 and by HmacSHA256 in turn. It knows no models: a request is a dictionary, an answer is JSON.
"""

import itertools
import json
import types
import unittest
from http.client import HTTPConnection

from QcloudApi.modules.cvm import Cvm

import test_cvm

# The flat shape's number for a code of the wrapped one: half of what the gateway refuses comes so.
FLAT = {"4100": "AuthFailure.SignatureFailure"}


class Refused(Exception):
    """The endpoint refused; its code."""


class Plain(HTTPConnection):
    """The SDK knows https only, and the simulator has none: its own connection without that. It counts bytes."""

    request_length = 0


class CvmLegacy(test_cvm.Cvm):
    def connect(self, cloud, secret):
        clients = []
        for method, signature in itertools.product(("GET", "POST"), ("HmacSHA1", "HmacSHA256")):
            config = {
                "secretId": cloud["access_key_id"],
                "secretKey": secret,
                "Region": cloud["region"],
                "Version": "2017-03-12",
                "method": method,
                "SignatureMethod": signature,
            }
            client = Cvm(config)
            client.requestHost = self.address
            client.apiRequest.conn = Plain(self.address)
            clients.append(client)
        return itertools.cycle(clients)

    def code(self, call):
        try:
            call()
        except Refused as refused:
            return FLAT.get(str(refused), str(refused))
        return None

    def call(self, action, **fields):
        answer = json.loads(next(self.client).call(action, fields))
        if "code" in answer:
            raise Refused(answer["code"])
        response = answer["Response"]
        self.assertTrue(response["RequestId"], "an answer names its request")
        if "Error" in response:
            raise Refused(response["Error"]["Code"])
        return json.loads(json.dumps(response), object_hook=lambda fields: types.SimpleNamespace(**fields))

    def filter(self, name, *values):
        return {"Name": name, "Values": list(values)}

    def tearDown(self):
        self.assertGreater(self.state()["legacy_calls"], 0)
        self.assertEqual(self.state()["legacy_calls"], sum(self.state()["calls"].values()), "the SDK knows one endpoint")


if __name__ == "__main__":
    unittest.main()
