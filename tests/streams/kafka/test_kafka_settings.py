"""Kafka settings from a file, and where the password comes from."""

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from roadstream.schemas.errors import ConfigError, UsageError
from roadstream.streams.kafka.security import client_options
from roadstream.streams.kafka.settings import KafkaSettings, load_kafka_settings

VARIABLE = "ROADSTREAM_KAFKA_PASSWORD"


def sasl(**changes: str) -> KafkaSettings:
    return KafkaSettings(
        security_protocol="SASL_PLAINTEXT",
        sasl_username="camera",
        **changes,  # type: ignore[arg-type]
    )


def tls(**changes: str) -> KafkaSettings:
    return KafkaSettings(security_protocol="SSL", **changes)  # type: ignore[arg-type]


def test_a_file_of_settings_is_read_with_paths_from_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "kafka.toml"
    file.write_text(
        'security_protocol = "SASL_SSL"\nsasl_username = "camera"\n'
        'ssl_ca_file = "ca.pem"\nsasl_password_file = "/run/secrets/kafka"\nsession_timeout = 10\n'
    )

    settings = load_kafka_settings(file)

    assert settings == KafkaSettings(
        security_protocol="SASL_SSL",
        sasl_username="camera",
        ssl_ca_file=str(tmp_path / "ca.pem"),
        sasl_password_file="/run/secrets/kafka",
        session_timeout=10.0,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a", ": expected a TOML file, got "),
        (
            'pasword = "x"',
            ": expected a setting of docs/guide/kafka.md, got the unknown key pasword",
        ),
        ('sasl_password = "x"', ", got the unknown key sasl_password"),
        ('drain_timeout = "x"', ": drain_timeout: expected float, got str"),
        ("stop_timeout = 0", ": stop_timeout: expected float > 0.0, got another value"),
        ("drain_timeout = 60", ": drain_timeout: expected less than rebalance_timeout"),
        (
            'security_protocol = "TLS"',
            ": security_protocol: expected a value that docs/guide/kafka.md names, got 'TLS'",
        ),
        (
            'ssl_ca_file = "ca.pem"',
            ": security_protocol: expected SSL or SASL_SSL for ssl_ca_file, got PLAINTEXT",
        ),
        (
            'sasl_username = "camera"',
            ": security_protocol: expected SASL_SSL for a sasl_username, got PLAINTEXT",
        ),
        (
            'security_protocol = "SASL_SSL"',
            ": sasl_username: expected a user name for SASL_SSL, got nothing",
        ),
        (
            'security_protocol = "SSL"\nssl_key_file = "k.pem"',
            ": ssl_certificate_file: expected one beside ssl_key_file, got nothing",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "kafka.toml"
    file.write_text(text)

    with pytest.raises(ConfigError) as caught:
        load_kafka_settings(file)

    assert str(caught.value).startswith(str(file))
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"nowhere\.toml: expected a file of Kafka settings, got "
    ):
        load_kafka_settings(tmp_path / "nowhere.toml")


def test_the_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "7413")

    options = client_options(sasl(sasl_password_variable="CAMERA_PASSWORD"))

    assert options["sasl_plain_password"] == "7413"


def test_the_password_comes_from_a_file_without_its_line_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "not this one")
    file = tmp_path / "secret"
    file.write_text(" 7413 \r\n")

    assert client_options(sasl(sasl_password_file=str(file)))["sasl_plain_password"] == " 7413 "


def test_a_missing_password_is_named_with_both_places_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)

    with pytest.raises(UsageError, match=f"variable {VARIABLE} or in sasl_password_file, got none"):
        client_options(sasl())
    with pytest.raises(UsageError, match=r"sasl_password_file: expected a text file, got .*secret"):
        client_options(sasl(sasl_password_file=str(tmp_path / "secret")))


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    file = tmp_path / "empty.pem"
    file.touch()

    with pytest.raises(UsageError, match=r"ssl_ca_file: expected .* got .*empty\.pem: "):
        client_options(tls(ssl_ca_file=str(file)))
    with pytest.raises(UsageError, match=r"ssl_certificate_file: expected .*no\.pem: No such file"):
        client_options(tls(ssl_certificate_file=str(tmp_path / "no.pem")))


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("camera.example")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    )
    issued.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")

    with pytest.raises(UsageError, match="ssl_key_file: expected a key that is not encrypted"):
        client_options(
            tls(
                ssl_certificate_file=str(tmp_path / "client.pem"),
                ssl_key_file=str(tmp_path / "key.pem"),
            )
        )
