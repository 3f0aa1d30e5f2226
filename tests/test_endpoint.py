"""A Teacher: a model behind an OpenAI-compatible endpoint. Its key stays with that endpoint, and whatever the
endpoint answers ends as a reply or as a ConnectionError of one line, in bounded time and memory."""

import json
import os
import signal
import threading
import time
import traceback
import urllib.parse

import pytest

import agents
from agents import Journal, Teacher
from terminal import UsageError
from tests.endpoint import Endpoint, Waits

KEY = "sk-very-secret"
KEYS = [KEY, "sk-proj-" + "Q7/+z=\"\\<'&%.$" * 3, "K" * 200]


def asked(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


@pytest.fixture
def waits(monkeypatch):
    waits = Waits()
    monkeypatch.setattr(agents, "Event", waits)
    return waits


def failure(teacher):
    """The message of the error that a request ends with."""
    with pytest.raises(ConnectionError) as error:
        teacher.reply(asked("a"))
    message = str(error.value)
    assert len(message.splitlines()) == 1 and len(message) < 600
    return message


def pieces(key, size=6):
    """All parts of a key of some length; none may be shown."""
    return {key[i : i + size] for i in range(len(key) - size + 1)}


def holds_a_piece(text, key):
    return any(piece.lower() in text.lower() for piece in pieces(key))


# ------------------------------------------------------------------------------------------------ replies
def test_replies_come_in_order_and_are_counted():
    with Endpoint() as end:
        teacher = Teacher(end.url, "big", KEY, max_new=7, temperature=0.5, workers=4)
        groups = teacher.reply(asked(*"abcdefgh"), n=2)
    assert [[reply.text for reply in group] for group in groups] == [[f"re: {x}"] * 2 for x in "abcdefgh"]
    assert teacher.tokens() == [48, 32]
    path, key, body = end.seen[0]
    assert path == "/v1/chat/completions" and key == f"Bearer {KEY}"
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("big", 7, 0.5)


@pytest.mark.parametrize("how", [429, 500, 503, "nonsense", "other", "null", "hang up", "slow"])
def test_what_fails_for_a_while_is_tried_again(how, waits):
    with Endpoint(how, how) as end:
        ((reply,),) = Teacher(end.url, "big", timeout=0.3).reply(asked("a"))
    assert reply.text == "re: a" and reply.finished and len(end.seen) == 3
    # as the endpoint asks, or doubling
    assert waits == ([0.0, 0.0] if isinstance(how, int) else [1.0, 2.0])


@pytest.mark.parametrize("how, tries", [(401, 1), (404, 1), (503, 3)])
def test_what_cannot_work_says_so(how, tries, waits):
    with Endpoint(*[how] * 9) as end:
        said = failure(Teacher(end.url, "big", KEY, tries=3))
    assert said.startswith(f"{end.url}/chat/completions: ") and str(how) in said and "not now" in said
    assert len(end.seen) == tries


def test_where_nobody_answers_all_tries_fail(waits):
    assert "http://127.0.0.1:9/v1" in failure(Teacher("http://127.0.0.1:9/v1", "big", tries=2))
    assert waits == [1.0]


def test_replies_that_a_journal_keeps_are_not_asked_again(tmp_path):
    """Equal requests of one part are told apart, and so are those of two parts; what was paid is known."""
    path, texts = tmp_path / "replies.part", ["a", "a", "b"]
    with Endpoint() as end:
        teacher = Teacher(end.url, "big", journal=Journal(path, {}))
        groups = teacher.reply(asked(*texts))
        with open(path, "a") as file:
            file.write('{"row": "cut off by a')  # a kill
        again = Teacher(end.url, "big", journal=Journal(path, {}))
        assert again.reply(asked(*texts)) == groups and len(end.seen) == 3
        assert again.paid_before == again.tokens() == teacher.tokens() == [9, 6]
        again.start_part(1)
        again.reply(asked("a"))
        assert len(end.seen) == 4


# ------------------------------------------------------------------------------------------ where a key goes
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
def test_no_redirect_is_followed_and_nothing_reaches_the_other_host(status, waits):
    with Endpoint() as other:
        moved = {"Location": f"{other.url}/chat/completions", "Retry-After": "0"}
        with Endpoint(lambda handler: handler.answer(status, b"", moved)) as end:
            said = failure(Teacher(end.url, "big", KEY))
    assert other.seen == [] and len(end.seen) == 1 and waits == []
    assert "URL" in said and f"{other.url})" in said, "names the url to give"
    assert not holds_a_piece(said, KEY)


@pytest.mark.parametrize("location", [None, "/v2", "file:///etc/passwd", "http://[::1", "//", "x" * 9000])
def test_an_odd_redirect_is_an_error_of_one_line_too(location, waits):
    headers = {"Location": location} if location else {}
    with Endpoint(lambda handler: handler.answer(302, b"<html>", headers)) as end:
        said = failure(Teacher(end.url, "big", KEY))
    assert "302" in said and len(end.seen) == 1 and "root:" not in said


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://host/v1",
        "data:text/plain,x",
        "host/v1",
        "http://",
        "http:///v1",
        "httpx://h",
    ]
    + [
        "http://host:port/v1",
        "http://ho st/v1",
        "http://host/v1\n",
        "http://host/v1\r\nX: y",
        "http://hôst",
        "",
    ],
)
def test_a_url_that_is_no_http_url_is_a_wrong_call(url):
    with pytest.raises(UsageError) as error:
        Teacher(url, "big")
    assert url in str(error.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1/", "https://a.b-c_d.example", "http://[::1]:80/a/v1"]
)
def test_usual_urls_are_taken(url):
    assert Teacher(url, "big").url == url.rstrip("/") + "/chat/completions"


@pytest.mark.parametrize(
    "url",
    [
        "https://me:SECRET@host/v1",
        "https://SECRET@host/v1",
        "http://me:SEC/RET@host/v1",
        "ftp://me:SECRET@host",
    ]
    + [
        "https://host/v1?key=SECRET",
        "https://host/v1#SECRET",
        "http://me:SEC#RET@host",
        "http://me:SEC\nRET@h",
    ]
    + ["http://[SECRET@host/v1", "https://host/v1?a=1@SECRET"],
)
def test_a_url_with_a_place_for_a_secret_is_refused_without_showing_it(url):
    with pytest.raises(UsageError, match="PARLOR_KEY") as error:
        Teacher(url, "big")
    assert "SEC" not in shown(error) and "RET" not in shown(error)


def shown(error):
    """All that a traceback would show of an error and those behind it."""
    return "".join(traceback.format_exception_only(error.value)) + repr(error.value.__context__)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "file:///etc", "ftp://127.0.0.1:9"])
def test_a_proxy_of_another_kind_is_an_error_of_one_line(proxy, waits, monkeypatch):
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    said = failure(Teacher("http://endpoint.invalid/v1", "big", KEY, tries=2))
    assert "unknown" in said and proxy.partition(":")[0] in said


def test_the_proxy_of_the_environment_is_asked(monkeypatch):
    with Endpoint() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        ((reply,),) = Teacher("http://endpoint.invalid/v1", "big").reply(asked("a"))
    assert reply.text == "re: a" and proxy.seen[0][0] == "http://endpoint.invalid/v1/chat/completions"


# ------------------------------------------------------------------------------------------ what shows a key
@pytest.mark.parametrize(
    "odd", ["\n", "\r", "\r\n", " ", "\t", "\x00", "\x1b", "\x7f", "é", "\u2028", "\ud800"]
)
@pytest.mark.parametrize("place", [0, 7, len(KEY)])
def test_a_key_that_cannot_be_sent_is_a_wrong_call_that_does_not_show_it(odd, place):
    with pytest.raises(UsageError, match="PARLOR_KEY") as error:
        Teacher("http://127.0.0.1:9/v1", "big", KEY[:place] + odd + KEY[place:])
    assert not holds_a_piece(shown(error), KEY)


def test_without_a_key_no_authorization_is_sent():
    with Endpoint() as end:
        Teacher(end.url, "big").reply(asked("a"))
    assert end.seen[0][1] is None


SPELLINGS = {
    "plain": lambda key: key,
    "other case": str.swapcase,
    "json": lambda key: json.dumps(key)[1:-1],
    "json in json": lambda key: json.dumps(json.dumps(key))[3:-3],
    "slashes": lambda key: json.dumps(key)[1:-1].replace("/", "\\/"),
    "unicode escapes": lambda key: "".join(f"\\u{ord(c):04X}" for c in key),
    "url": lambda key: urllib.parse.quote(key, safe=""),
    "all of a url": lambda key: "".join(f"%{ord(c):02x}" for c in key),
    "url in url": lambda key: urllib.parse.quote(urllib.parse.quote(key, safe=""), safe=""),
    "html": lambda key: "".join(c if c.isalnum() else f"&#{ord(c)};" for c in key),
    "html, base 16": lambda key: "".join(c if c.isalnum() else f"&#x{ord(c):x};" for c in key),
    "repr": lambda key: repr(key.encode())[2:-1],
    "repeated": lambda key: key * 50,
}


@pytest.mark.parametrize("key", KEYS, ids=["short", "odd", "long"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_key_that_an_endpoint_says_is_not_shown(spelling, key, waits):
    text = SPELLINGS[spelling](key)
    with Endpoint() as end:
        for start in (0, 350, 360, 365, 370, 380, 390):  # beside the place where a long body is cut
            end.script.append(saying(b"x" * start + f'"Bearer {text}"'.encode() + b"y" * 400))
            said = failure(Teacher(end.url, "big", key))
            assert not holds_a_piece(said, key) and not holds_a_piece(said, text)
            assert "***" in said or start >= 350


def saying(body, status=401):
    return lambda handler: handler.answer(status, body)


@pytest.mark.parametrize("key", KEYS, ids=["short", "odd", "long"])
@pytest.mark.parametrize(
    "answer",
    {
        "reason": lambda handler, key: handler.answer(403, b"", reason=f"no {key}"),
        "location": lambda handler, key: handler.answer(
            307, b"", {"Location": f"http://h/{key}/v1?key={key}"}
        ),
        "no http": lambda handler, key: handler.wfile.write(f"HTTX {key}\r\n\r\n".encode()),
        "chunk": lambda handler, key: handler.answer(
            200, f"{key}\r\n".encode(), {"Transfer-Encoding": "chunked"}
        ),
        "usage": lambda handler, key: handler.answer(200, answer_with(usage=f"Bearer {key}")),
        "count": lambda handler, key: handler.answer(
            200, answer_with(usage={"prompt_tokens": f"Bearer {key}"})
        ),
        "role": lambda handler, key: handler.answer(200, json.dumps({key: key}).encode()),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_key_is_shown_by_no_other_part_of_an_answer(answer, key, waits):
    with Endpoint(*[lambda handler: answer[1](handler, key)] * 2) as end:
        said = failure(Teacher(end.url, "big", key, tries=2))
    assert not holds_a_piece(said, key)


def answer_with(text="fine", **fields):
    return json.dumps({"choices": [{"message": {"content": text}}], **fields}).encode()


@pytest.mark.parametrize("key", KEYS, ids=["short", "odd", "long"])
def test_a_key_in_a_reply_reaches_no_journal(key, tmp_path):
    path = tmp_path / "replies.part"
    with Endpoint(answer_with(f"You are {key}, or {urllib.parse.quote(key, safe='')}!")) as end:
        ((reply,),) = Teacher(end.url, "big", key, journal=Journal(path, {})).reply(asked("a"))
    assert reply.text == "You are ***, or ***!"
    assert not holds_a_piece(path.read_text(), key) and "***" in path.read_text()


@pytest.mark.parametrize("word", ["none", "EMPTY", "ollama", "1234"])
def test_a_word_in_place_of_a_key_stays_in_replies(word):
    with Endpoint(answer_with(f"I know {word}.")) as end:
        ((reply,),) = Teacher(end.url, "big", word).reply(asked("a"))
    assert reply.text == f"I know {word}."


# ------------------------------------------------------------------------------------------------ bad answers
BAD = {
    "empty": b"",
    "no JSON": b"data: {}",
    "no UTF-8": b'{"choices": [{"message": {"content": "\xff"}}]}',
    "UTF-16": answer_with().decode().encode("utf-16"),
    "deep": b"[" * 100_000,
    "deep beside the reply": answer_with()[:-1] + b', "x": ' + b'{"a":' * 100_000,
    "number of 5,000 digits": b'{"choices": ' + b"9" * 5000 + b"}",
    "list": b"[1]",
    "text": b'"choices"',
    "null": b"null",
    "number": b"1e999",
    "choices an object": b'{"choices": {"0": 1}}',
    "choices a text": b'{"choices": "abc"}',
    "choices null": b'{"choices": null}',
    "choice a text": b'{"choices": ["message"]}',
    "choice null": b'{"choices": [null]}',
    "message a text": b'{"choices": [{"message": "content"}]}',
    "text a list": answer_with(["a"]),
    "text a number": answer_with(1),
    "surrogate": answer_with("a \ud800 b"),
    "usage a text": answer_with(usage="12"),
    "usage a list": answer_with(usage=[["prompt_tokens", 3]]),
    "usage a number": answer_with(usage=3),
    **{
        f"count {value!r:.9}": answer_with(usage={"completion_tokens": value})
        for value in ("12", -1, True, 1.5, float("nan"), float("inf"), 10**30, [3], {"a": 3})
    },
}


@pytest.mark.parametrize("how", BAD.values(), ids=BAD)
def test_a_bad_answer_is_tried_again_and_then_an_error(how, waits):
    with Endpoint(how) as end:
        teacher = Teacher(end.url, "big", KEY)
        assert teacher.reply(asked("a"))[0][0].text == "re: a"
        assert len(end.seen) == 2 and waits == [1.0] and teacher.tokens() == [3, 2]
    with Endpoint(how, how) as end:
        failure(Teacher(end.url, "big", KEY, tries=2))
    assert len(end.seen) == 2


def test_a_reply_without_a_text_says_so(waits):
    with Endpoint("null") as end:
        assert "no text" in failure(Teacher(end.url, "big", tries=1))


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": None}, {"completion_tokens": 0, "other": "x"}], ids=str
)
def test_an_answer_need_not_say_what_it_cost(usage):
    with Endpoint(answer_with(usage=usage)) as end:
        teacher = Teacher(end.url, "big")
        assert teacher.reply(asked("a"))[0][0].text == "fine"
    assert teacher.tokens() == [0, 0] and "0 of replies" in teacher.bill()


def chunks(*sizes):
    """The body of an answer in chunks, whose sizes may be false."""
    body = b"".join(f"{size}\r\n".encode() + b"x" * 1000 + b"\r\n" for size in sizes)
    return lambda handler: handler.answer(200, body, {"Transfer-Encoding": "chunked"})


@pytest.mark.parametrize(
    "how",
    [
        answer_with("x" * 3000),
        lambda handler: handler.answer(500, b"x" * 3000, {"Content-Length": "3000"}),
        lambda handler: handler.answer(200, answer_with("x" * 3000), {"Content-Length": "3060"}),
        lambda handler: handler.answer(200, b"{", {"Content-Length": str(10**15)}),
        lambda handler: handler.answer(200, b"", {f"X-{i}": "x" for i in range(200)}),
        lambda handler: handler.answer(200, b"", {"X": "x" * 100_000}),
        lambda handler: handler.drip(b" " * 5000, b"HTTP/1.1 200 OK\r\n\r\n"),
        chunks("3e8", "3e8", "3e8"),
        chunks("f" * 12),
        chunks("-1"),
        chunks("x"),
    ],
    ids=lambda how: "",
)
def test_an_answer_that_is_too_large_is_a_bad_one(how, waits, monkeypatch):
    monkeypatch.setattr(agents, "LARGEST_ANSWER", 2000)
    with Endpoint(how) as end:
        assert Teacher(end.url, "big").reply(asked("a"))[0][0].text == "re: a"
    assert len(end.seen) == 2


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "piece, start",
    [
        (b"H", b""),  # the status
        (b"X", HEAD),  # the name of a header
        (b"X: y\r\n", HEAD),  # headers
        (b"HTTP/1.1 100 Continue\r\n\r\n", b""),
        (b" ", HEAD + b"\r\n"),  # the body
        (b" ", HEAD + b"Content-Length: 100000\r\n\r\n"),
        (b"1\r\n \r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),
        (b"0", HEAD + b"Transfer-Encoding: chunked\r\n\r\n"),  # the size of a chunk
        (b"X: y\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"),  # what follows the last chunk
        (b"x", b"HTTP/1.1 500 No\r\n\r\n"),
        (b"", HEAD),  # nothing more
    ],
)
def test_an_answer_that_comes_byte_by_byte_ends_in_time_and_each_try_has_its_own(
    piece, start, waits, monkeypatch
):
    monkeypatch.setattr(agents, "LONGEST", 0.1)
    with Endpoint(*[lambda handler: handler.drip(piece, start)] * 2) as end:
        begin = time.monotonic()
        assert Teacher(end.url, "big").reply(asked("a"))[0][0].text == "re: a"
        assert 0.2 <= time.monotonic() - begin < 4
    assert len(end.seen) >= 3  # more if the machine is busy


def test_an_answer_without_an_end_ends_in_time_too(waits, monkeypatch):
    monkeypatch.setattr(agents, "LONGEST", 0.2)
    start = HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    with Endpoint(lambda handler: handler.drip(b"X: y\r\n" * 1000, start, pause=0)) as end:
        begin = time.monotonic()
        said = failure(Teacher(end.url, "big", tries=1))
        assert "0.2 seconds" in said and time.monotonic() - begin < 4


def test_one_answer_at_a_time_is_parsed(monkeypatch):
    """Otherwise eight workers would need eight times the memory that JSON of 32 MB can take."""
    parse, alone = agents.read_answer, threading.Lock()

    def check(content):
        assert alone.acquire(blocking=False)
        time.sleep(0.01)
        alone.release()
        return parse(content)

    monkeypatch.setattr(agents, "read_answer", check)
    with Endpoint() as end:
        assert len(Teacher(end.url, "big").reply(asked(*"abcdefgh"))) == 8


# ------------------------------------------------------------------------------------------------ waits
@pytest.mark.parametrize(
    "after, wait",
    [("7", 7.0), ("61", 60.0), ("9" * 5000, 60.0), ("0", 0.0)]
    + [
        (odd, 1.0)
        for odd in ("Wed, 21 Oct 2015 07:28:00 GMT", "\xb2", "-5", "nan", "inf", "1e9", "0x10", "", "1 2")
    ],
)
def test_no_wait_is_longer_than_a_minute_and_no_odd_one_an_error(after, wait, waits):
    with Endpoint(lambda handler: handler.answer(503, b"", {"Retry-After": after})) as end:
        assert Teacher(end.url, "big").reply(asked("a"))[0][0].text == "re: a"
    assert waits == [wait]


def test_without_a_word_on_it_waits_double_up_to_a_minute(waits):
    with Endpoint(*[lambda handler: handler.answer(503, b"")] * 9) as end:
        failure(Teacher(end.url, "big", tries=9))
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


def test_ctrl_c_ends_the_waits_and_begins_no_other_request():
    """Eight workers are told to wait a minute each, and more requests stand behind them."""
    with Endpoint(*[lambda handler: handler.answer(429, b"", {"Retry-After": "60"})] * 99) as end:
        teacher = Teacher(end.url, "big")

        def press():
            while len(end.seen) < 8:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=press, daemon=True).start()
        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            teacher.reply(asked("a"), n=20)
        assert time.monotonic() - begin < 10 and len(end.seen) == 8
        end.script.clear()
        assert teacher.reply(asked("a"))[0][0].text == "re: a", "and may go on"
