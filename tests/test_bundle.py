"""tests: a bundle is what was built, byte for byte, or it is refused by name."""

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgewise.bundle.manifest import FILE_NAME, FORMAT, File, Manifest
from edgewise.bundle.read import Bundle, verify
from edgewise.errors import BundleError


@pytest.fixture
def bundle(pycoder_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the demo bundle, to be damaged."""
    return Path(shutil.copytree(pycoder_bundle.path, tmp_path / "copy.edge"))


def refused(folder: Path, message: str) -> None:
    """Both ways to open a bundle refuse it, with one line."""
    for opener in (verify, Bundle.open):
        with pytest.raises(BundleError, match=message) as caught:
            opener(folder)
        assert "\n" not in str(caught.value)


def sign(folder: Path, change: Callable[[Manifest], Manifest]) -> None:
    """Change the manifest as somebody would who knows how its hash is made."""
    path = folder / FILE_NAME
    path.write_text(change(Manifest.read(path.read_text(), where="")).write())


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_bundle_opens_as_it_was_built(pycoder_bundle: Bundle) -> None:
    assert verify(pycoder_bundle.path) == pycoder_bundle
    assert Bundle.open(str(pycoder_bundle.path)).manifest.target == "cpu-x64"


def test_a_bundle_holds_plain_files_with_normal_permissions(pycoder_bundle: Bundle) -> None:
    for path in [pycoder_bundle.path, *pycoder_bundle.path.rglob("*")]:
        assert not path.is_symlink()
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


def test_a_changed_byte_in_any_file_is_refused_by_name(bundle: Path) -> None:
    rng = random.Random(0)
    for name in names(bundle):
        content = (bundle / name).read_bytes()
        for _ in range(5):
            at, flip = rng.randrange(len(content)), rng.randrange(1, 256)
            damaged = content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :]
            (bundle / name).write_bytes(damaged)
            refused(bundle, re.escape(str(bundle / name)))
        (bundle / name).write_bytes(content)
    verify(bundle)


def test_a_shorter_or_longer_file_is_refused(bundle: Path) -> None:
    for name in names(bundle):
        content = (bundle / name).read_bytes()
        for damaged in (b"", content[:-1], content + b"\n"):
            (bundle / name).write_bytes(damaged)
            refused(bundle, re.escape(str(bundle / name)))
        (bundle / name).write_bytes(content)


def test_a_missing_file_is_refused(bundle: Path) -> None:
    for name in names(bundle):
        (bundle / name).rename(bundle.parent / "moved")
        refused(bundle, name)
        (bundle.parent / "moved").rename(bundle / name)


def test_a_file_that_was_added_is_refused(bundle: Path) -> None:
    (bundle / "onnx" / "custom_ops.so").touch()
    refused(bundle, "custom_ops.so is not part of the bundle")


def test_a_link_is_refused_even_to_the_right_content(bundle: Path) -> None:
    file = bundle / "onnx" / "model.onnx_data"
    file.rename(bundle.parent / "elsewhere")
    file.symlink_to(bundle.parent / "elsewhere")
    refused(bundle, "model.onnx_data is a link")


def test_a_linked_folder_is_refused(bundle: Path) -> None:
    (bundle / "onnx").rename(bundle.parent / "elsewhere")
    (bundle / "onnx").symlink_to(bundle.parent / "elsewhere")
    refused(bundle, "onnx is a link")


def test_a_linked_manifest_is_refused(bundle: Path) -> None:
    (bundle / FILE_NAME).rename(bundle.parent / "elsewhere")
    (bundle / FILE_NAME).symlink_to(bundle.parent / "elsewhere")
    refused(bundle, FILE_NAME)


def test_a_device_is_refused_without_waiting_for_it(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()
    os.mkfifo(bundle / "tokenizer.json")
    refused(bundle, "tokenizer.json is a link or a device")


@pytest.mark.parametrize(
    "name",
    ["../outside", "/etc/hostname", "onnx/../../outside", "C:drive", "back\\slash", ".hidden", "a//b", "", FILE_NAME],
)
def test_a_path_that_leaves_the_bundle_is_refused(bundle: Path, name: str) -> None:
    (bundle.parent / "outside").touch()
    sign(bundle, lambda manifest: replace(manifest, files={**manifest.files, name: File(0, "00")}))
    refused(bundle, "not the name of a file inside of the bundle")


def test_names_that_differ_only_in_case_are_refused(bundle: Path) -> None:
    sign(bundle, lambda manifest: replace(manifest, files={**manifest.files, "readme.md": manifest.files["README.md"]}))
    refused(bundle, "upper and lower case")


def test_a_graph_outside_of_the_files_is_refused(bundle: Path) -> None:
    sign(bundle, lambda manifest: replace(manifest, graphs={"decoder": "../model.onnx"}))
    refused(bundle, "'../model.onnx' is not among the files")


def test_a_newer_format_asks_for_a_newer_edgewise(bundle: Path) -> None:
    sign(bundle, lambda manifest: replace(manifest, format=FORMAT + 1))
    refused(bundle, f"format {FORMAT + 1} is newer than {FORMAT}.*upgrade")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "1"}', "[" * 100_000, '{"a": 1, "a": 1}'])
def test_a_manifest_that_is_none_is_refused(bundle: Path, text: str) -> None:
    (bundle / FILE_NAME).write_text(text)
    refused(bundle, FILE_NAME)


@pytest.mark.parametrize(
    ("key", "value"), [("vocab_size", 7), ("context_length", 7), ("decoder", {}), ("decoder", None), ("decoder", 7)]
)
def test_a_genai_config_for_another_model_is_refused(bundle: Path, key: str, value: object) -> None:
    config = json.loads((bundle / "genai_config.json").read_text())
    config["model"][key] = value
    replace_file(bundle, "genai_config.json", json.dumps(config).encode())
    refused(bundle, "genai_config.json")


def test_a_tokenizer_that_ends_its_process_is_refused_by_verify(bundle: Path) -> None:
    tokenizer = json.loads((bundle / "tokenizer.json").read_text())
    tokenizer["padding"] = hostile_padding()
    replace_file(bundle, "tokenizer.json", json.dumps(tokenizer).encode())
    with pytest.raises(BundleError, match=r"tokenizer.json ends the process that reads it \(SIGABRT\)"):
        verify(bundle)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}", "the chat template cannot be read: Unexpected end of template"),
        ("{{ messages[0].content + 1 }}", "the chat template failed: can only concatenate str"),
        ("{{ 'A' * (messages | length * 10**10) }}", "the chat template failed"),
    ],
    ids=["syntax", "error", "memory"],
)
def test_a_template_that_does_not_work_is_refused_by_verify(bundle: Path, template: str, message: str) -> None:
    replace_file(bundle, "chat_template.jinja", template.encode())
    with pytest.raises(BundleError, match=f"chat_template.jinja: .*{message}") as caught:
        verify(bundle)
    assert "\n" not in str(caught.value)


def test_a_template_may_refuse_a_conversation(bundle: Path) -> None:
    replace_file(bundle, "chat_template.jinja", b"{{ raise_exception('translations only') }}")
    verify(bundle)


def test_a_folder_that_is_no_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "there is no bundle at .*edgewise build")
    refused(tmp_path, "is not a bundle: it has no manifest.json")


def test_content_is_not_read_where_the_caller_trusts_it(bundle: Path) -> None:
    with (bundle / "onnx/model.onnx_data").open("r+b") as file:
        file.write(b"damage")
    assert Bundle.open(bundle, verify=False).graph() == bundle / "onnx/model.onnx"


def hostile_padding() -> dict[str, object]:
    return {
        "strategy": {"Fixed": 2**60},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "x",
    }


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Another content for a file, with the right hash: malice and not damage."""
    import blake3

    (folder / name).write_bytes(content)
    file = File(len(content), blake3.blake3(content).hexdigest())
    sign(folder, lambda manifest: replace(manifest, files={**manifest.files, name: file}))
