"""The reference worker with one rule broken, named by the first argument: the suite has to notice each."""
import importlib.util, pathlib, sys

root = pathlib.Path(__file__).parents[3]
spec = importlib.util.spec_from_file_location("worker", root / "conformance" / "reference.py")
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
reference, rule = worker.reference, sys.argv[1]
send, Call = reference.Connection.send, reference.Call


def answers_twice(self, kind, corr=0, body=b""):
    send(self, kind, corr, body)
    if kind == reference.INVOKE_DONE:
        send(self, kind, corr, body)


def answers_under_another_number(self, kind, corr=0, body=b""):
    send(self, kind, corr + 1 if kind == reference.INVOKE_DONE else corr, body)


def sends_unknown_flags(self, kind, corr=0, body=b""):
    send(self, kind, corr, b"\x00\x02" + body[2:] if kind == reference.INVOKE_DONE else body)


class Greedy:
    """Credit that is never used up."""
    def __set__(self, call, value):
        pass

    def __get__(self, call, owner=None):
        return reference.WINDOW


if rule in ("answers_twice", "answers_under_another_number", "sends_unknown_flags"):
    reference.Connection.send = globals()[rule]
elif rule == "forgets_the_position":
    Call.seen = lambda self, position: None
elif rule == "goes_back_to_an_older_position":
    Call.seen = lambda self, position: setattr(self, "position", position)
elif rule == "takes_no_notice_of_credit":
    Call.credit = Greedy()
elif rule == "names_no_parent":
    ask = Call.ask

    async def orphan(self, kind, body):
        if kind == reference.CALL:
            body = body[:22] + bytes(8) + body[30:]
        return await ask(self, kind, body)

    Call.ask = orphan
elif rule == "offers_too_little":
    del reference.FUNCTIONS["tail"]
elif rule == "offers_no_streams":
    del reference.FUNCTIONS["stream_in"], reference.FUNCTIONS["stream_out"]
elif rule != "none":
    sys.exit(f"there is no rule {rule!r}")

worker.asyncio.run(reference.main())
