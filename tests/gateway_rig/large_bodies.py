"""Bodies just below the bound, of every shape that costs a parser more than its bytes, and one with 64,000 keys."""

SIZE_BYTES = 15 * 1024 * 1024


def filled(unit: bytes, *, before: bytes = b"", behind: bytes = b"") -> bytes:
    """Return a JSON object of nearly SIZE_BYTES: a model, and this unit again and again between the others."""
    start = b'{"model":"m",' + before
    return start + unit * ((SIZE_BYTES - len(start) - len(behind)) // len(unit)) + behind + b"}"


ADDRESS = b'"messages":[{"image_url":{"url":"http://h/"}},'
SHAPES: dict[str, bytes] = {
    "empty arrays": filled(b"[],", before=b'"x":[', behind=b"1]"),
    "empty objects": filled(b"{},", before=b'"x":[', behind=b"1]"),
    "empty strings": filled(b'"",', before=b'"x":[', behind=b"1]"),
    "numbers": filled(b"300,", before=b'"x":[', behind=b"1]"),
    "keys": filled(b'"a":1,', behind=b'"b":1'),
    "objects of one key": filled(b'{"a":1},', before=b'"x":[', behind=b"1]"),
    "deep arrays": filled(b"[", before=b'"x":'),
    "deep objects": filled(b'{"a":', before=b'"x":'),
    "backslashes": filled(b"\\\\", before=b'"y":"' + b":" * 5000 + b'","x":"', behind=b'"'),
    "quotes in a text": filled(b'\\"', before=b'"y":"' + b":" * 5000 + b'","x":"', behind=b'"'),
    "JSON in a text": filled(b'{\\"a\\": [1, \\"b\\"]},', before=b'"x":"', behind=b'"'),
    "emoji": filled("\U0001f600".encode(), before=b'"x":"', behind=b'"'),
    "letters and an emoji": filled(b"a", before='"x":"\U0001f600'.encode(), behind=b'"'),
    "blanks": filled(b" "),
    "digits": filled(b"7", before=b'"x":0.'),
    "a limit of digits": filled(b"7", before=b'"max_tokens":'),
    "the model again and again": filled(b'"model":"m",', behind=b'"x":1'),
    "the model as an escape": filled(b"a", before=b'"\\u006dodel":"m","x":"', behind=b'"'),
    "an address and arrays": filled(b"[],", before=ADDRESS, behind=b"1]"),
    "an address and numbers": filled(b"300,", before=ADDRESS, behind=b"1]"),
    "an address and a text": filled(b"a", before=ADDRESS + b'"', behind=b'"]'),
    "an address and an emoji": filled(b"a", before=ADDRESS + '"\U0001f600'.encode(), behind=b'"]'),
    "an address and an escaped emoji": filled(b"a", before=ADDRESS + b'"\\ud83d\\ude00', behind=b'"]'),
    "an address and another alphabet": filled("\u0436".encode(), before=ADDRESS + b'"', behind=b'"]'),
    "escaped letters": filled(b"\\u0041", before=b'"messages":[{"content":"', behind=b'"}]'),
    "escaped text of another alphabet": filled(b"\\u4e2d", before=b'"messages":[{"content":"', behind=b'"}]'),
    "text of another alphabet": filled("\u4e2d".encode(), before=b'"messages":[{"content":"', behind=b'"}]'),
    "quotes in a text behind an address": filled(b'\\"', before=b'"rl":"', behind=b'"'),
    "a picture": filled(b"QUJD", before=b'"messages":[{"url":"data:image/png;base64,', behind=b'"}]'),
    "as much as may be": filled(
        b"a", before=b'"y":[' + b'{"a":1},' * 60_000 + b"1]," + ADDRESS + b"1," * 60_000 + b'"', behind=b'"]'
    ),
}
KEYS_64000 = b'{"model":"m",' + b",".join(b'"k%d":1' % i for i in range(64_000)) + b"}"
"""llama.cpp's parser looks through all keys of an object for each of them: such a body kept a thread busy for a minute."""
