"""A control server in a process that is patched as the product is: python -m tests.support.control_driver FOLDER

It answers by itself: {"ask": "echo"}, {"ask": "lines", "count": N}, {"ask": "nothing"}; and sends what comes on stdin, a line
each, to those who follow ({"ask": "follow"}), until an empty line ends their answers. Its own stdout has a line for each.
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from gevent.fileobject import FileObjectPosix  # noqa: E402

from daemon.adapters.control import ControlServer, Document, Followers, Reply  # noqa: E402


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def main() -> None:
    folder = Path(sys.argv[1])
    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[2])))
    followers = Followers()
    following: list[Reply] = []

    def handle(question: Document, reply: Reply) -> None:
        match question.get("ask"):
            case "echo":
                reply.end({"asked": question})
            case "lines":
                for number in range(question["count"]):
                    reply.send({"number": number, "text": "x" * 1000})
                reply.end({"count": question["count"]})
            case "follow":
                followers.add(reply)
                following.append(reply)
        say("handled")

    server = ControlServer(handle)
    server.listen(os.open(folder, os.O_RDONLY), folder)
    render = followers.tee(lambda event: f"rendered {event['event']}".encode(errors="replace"))
    say("ready")
    for line in FileObjectPosix(0, "rb"):
        if line.strip():
            say(render({"event": line.decode("utf-8", "surrogateescape").strip()}).decode("utf-8", "surrogateescape"))
        else:
            for reply in following:
                reply.end({"followed": True})
            say("ended")
    server.close()
    say("closed")


if __name__ == "__main__":
    main()
