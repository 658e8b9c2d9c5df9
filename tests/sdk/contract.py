"""What each cloud of the simulator must do for its vendor's own SDK. One contract, four clouds.

A cloud's test class says how its SDK does each thing, and which codes its pages document; the tests here say what must
come of it. They must never look into the simulator but through its control port.
"""

from simulator import Keys, Simulator, wait_for

# Three pages of a hundred, and enough of them for a call with too many.
INSTANCES = 230
PAGE = 100


class Row:
    """An instance as the SDK read it."""

    def __init__(self, id, state, keys, windows=False, mark=None):
        self.id, self.state, self.keys, self.windows = id, state.upper(), keys, windows
        # What else the cloud shows by which one tells that an operation is over.
        self.mark = mark


class Contract:
    """The tests. Mixed into a `unittest.TestCase`, with these set and the methods below them overridden."""

    PROVIDER = None
    # The documented codes.
    WRONG_SECRET = TOO_MANY = UNKNOWN_INSTANCE = MALFORMED_KEY = BOUND = None
    # None: the cloud documents no such refusal, and takes it.
    DUPLICATE_NAME = DUPLICATE_KEY = None
    LIST_ACTION = "DescribeInstances"

    # ---- how the SDK does it

    def connect(self, cloud, secret):
        """A client of the SDK."""
        raise NotImplementedError

    def code(self, call):
        """The code in the SDK's exception that `call` raises, None if it raises none."""
        raise NotImplementedError

    def page(self, tags, size, after):
        """One page of the instances with these tags: rows, and where to go on (None at the end)."""
        raise NotImplementedError

    def rows(self, ids):
        """These instances, by id."""
        raise NotImplementedError

    def import_key(self, name, public_key):
        """Imports a public key and returns the pair's handle."""
        raise NotImplementedError

    def find(self, name):
        """The pairs of exactly this name: (handle, public key)."""
        raise NotImplementedError

    def bind(self, handle, ids):
        """Binds, as it must be done here, until the key is active on those that run. Power states as before."""
        raise NotImplementedError

    def raw_bind(self, handle, ids):
        """The bare call of a bind."""
        raise NotImplementedError

    def unbind(self, handle, ids):
        """Unbinds, until the cloud says that it is done. Power states as before."""
        raise NotImplementedError

    def delete_key(self, handle):
        """Deletes a pair."""
        raise NotImplementedError

    def too_many(self, handle, ids):
        """A call with one instance more than the cloud takes; `ids` are more than enough."""
        raise NotImplementedError

    # ---- the bench

    @classmethod
    def setUpClass(cls):
        cls.keys = Keys()
        cls.addClassCleanup(cls.keys.stop)
        cls.simulator = Simulator(INSTANCES)
        cls.addClassCleanup(cls.simulator.stop)
        cls.cloud = cls.simulator.cloud(cls.PROVIDER)
        # host:port, for the SDKs that want it so.
        cls.address = cls.cloud["endpoint"].split("//", 1)[1]

    def setUp(self):
        self.client = self.connect(self.cloud, self.cloud["access_key_secret"])

    def state(self):
        return self.simulator.state(self.PROVIDER)

    def truth(self, ids):
        """(power state, key pairs) of these instances, from the control port."""
        found = {row["id"]: row for row in self.state()["instances"]}
        return {id: (found[id]["state"].upper(), found[id]["key_pairs"]) for id in ids}

    def fleet(self):
        """Every tagged instance, page by page."""
        rows, after = [], None
        while True:
            page, after = self.page(self.cloud["tags"], PAGE, after)
            rows += page
            if after is None:
                return rows

    def unknown_id(self, ids):
        """An id of the right form that no instance has."""
        known = {row["id"] for row in self.state()["instances"]}
        return next(id for id in (ids[0][:-2] + end for end in ("00", "0a", "a0", "aa", "bb")) if id not in known)

    def wait_rows(self, what, ids, good):
        """Looks at these instances until each is good, and returns them by id."""
        def look():
            rows = {row.id: row for row in self.rows(ids)}
            return rows if len(rows) == len(ids) and all(good(row) for row in rows.values()) else None

        return wait_for(what, look)

    def running_and_stopped(self):
        """Two running Linux instances and a stopped one."""
        linux = [row for row in self.fleet() if not row.windows]
        running = [row.id for row in linux if row.state == "RUNNING"][:2]
        return running, [row.id for row in linux if row.state == "STOPPED"][:1]

    # ---- the contract

    def test_the_fleet_is_listed_by_its_tags_over_several_pages(self):
        before = self.state()["calls"].get(self.LIST_ACTION, 0)
        pages, after = [], None
        while True:
            rows, after = self.page(self.cloud["tags"], PAGE, after)
            pages.append([row.id for row in rows])
            if after is None:
                break
        self.assertEqual([len(page) for page in pages], [100, 100, 30])
        ids = [id for page in pages for id in page]
        self.assertEqual(len(set(ids)), INSTANCES, "none twice")
        state = self.state()
        self.assertEqual(state["calls"][self.LIST_ACTION] - before, 3)
        everybody = {row["id"] for row in state["instances"]}
        self.assertTrue(set(ids) < everybody, "strangers' machines are there and not listed")
        # What the SDK read is what is true: nothing is under way.
        self.assertEqual(
            {row.id: (row.state, row.keys) for row in self.fleet()}, self.truth(ids), "state and key pairs of each"
        )

    def test_a_key_pair_lives_from_its_import_to_its_deletion(self):
        broken = len(self.simulator.violations(self.PROVIDER))
        running, stopped = self.running_and_stopped()
        ids = running + stopped
        self.assertEqual((len(running), len(stopped)), (2, 1))
        public_key = self.keys.make()

        handle = self.import_key("rk_life_0", public_key)
        found = self.find("rk_life_0")
        self.assertEqual([pair[0] for pair in found], [handle])
        self.assertEqual(found[0][1].split()[:2], public_key.split()[:2], "the cloud may add a comment, no more")
        self.assertEqual(self.find("rk_life"), [], "part of a name is not the name")
        told = next(pair for pair in self.state()["key_pairs"] if pair["name"] == "rk_life_0")
        self.assertEqual((told["id"], told["public_key"]), (handle, public_key))

        self.bind(handle, ids)
        expected = {id: ("RUNNING", [handle]) for id in running} | {id: ("STOPPED", [handle]) for id in stopped}
        self.assertEqual(self.truth(ids), expected)
        self.assertEqual({row.id: (row.state, row.keys) for row in self.rows(ids)}, expected)

        self.assertEqual(self.code(lambda: self.delete_key(handle)), self.BOUND)
        self.assertEqual(len(self.find("rk_life_0")), 1, "a refused deletion deletes nothing")

        self.unbind(handle, ids)
        expected = {id: ("RUNNING", []) for id in running} | {id: ("STOPPED", []) for id in stopped}
        self.assertEqual(self.truth(ids), expected)
        self.delete_key(handle)
        self.assertEqual(self.find("rk_life_0"), [])
        self.assertNotIn("rk_life_0", [pair["name"] for pair in self.state()["key_pairs"]])
        self.assertEqual(self.simulator.violations(self.PROVIDER)[broken:], [], "the SDK broke no rule on the way")

    def test_a_wrong_secret_is_refused(self):
        self.client = self.connect(self.cloud, "x" * len(self.cloud["access_key_secret"]))
        self.assertEqual(self.code(lambda: self.page({}, PAGE, None)), self.WRONG_SECRET)
        self.assertEqual(self.simulator.violations(self.PROVIDER)[-1]["rule"], "Signature")

    def test_one_instance_too_many_is_refused_and_nothing_is_done(self):
        ids = [row.id for row in self.fleet() if not row.windows]
        handle = self.import_key("rk_many_0", self.keys.make())
        before = self.truth(ids)
        self.assertEqual(self.code(lambda: self.too_many(handle, ids)), self.TOO_MANY)
        self.assertEqual(self.simulator.violations(self.PROVIDER)[-1]["rule"], "Limit")
        self.assertEqual(self.truth(ids), before)

    def test_an_unknown_instance_is_refused(self):
        running, stopped = self.running_and_stopped()
        handle = self.import_key("rk_unknown_0", self.keys.make())
        unknown = self.unknown_id(running + stopped)
        self.assertEqual(self.code(lambda: self.raw_bind(handle, [unknown])), self.UNKNOWN_INSTANCE)

    def test_a_name_that_is_taken(self):
        first = self.import_key("rk_name_0", self.keys.make())
        self.assertEqual(self.code(lambda: self.import_key("rk_name_0", self.keys.make())), self.DUPLICATE_NAME)
        handles = [pair[0] for pair in self.find("rk_name_0")]
        self.assertIn(first, handles)
        self.assertEqual(len(handles), 1 if self.DUPLICATE_NAME else 2)

    def test_a_public_key_that_is_there_already(self):
        public_key = self.keys.make()
        self.import_key("rk_same_0", public_key)
        self.assertEqual(self.code(lambda: self.import_key("rk_same_1", public_key)), self.DUPLICATE_KEY)
        self.assertEqual(len(self.find("rk_same_1")), 0 if self.DUPLICATE_KEY else 1)

    def test_a_malformed_key_is_refused(self):
        for malformed in ("ssh-rsa AAAA", self.keys.make()[:-9], "no key"):
            with self.subTest(malformed):
                self.assertEqual(self.code(lambda: self.import_key("rk_bad_0", malformed)), self.MALFORMED_KEY)
        self.assertEqual(self.find("rk_bad_0"), [])
