"""Readers in several threads: whose message a decoder printed."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

from gpusift import images
from gpusift.images.reader import Decoding, Reader
from gpusift.images.stderr import Listener
from gpusift.sources import Source

RNG = np.random.default_rng(0)
SOUND = cv2.imencode(".png", RNG.integers(0, 256, (45, 67), dtype=np.uint8))[1].tobytes()
SOURCE = Source("a.jpg", "/a.jpg")


def complaining() -> bytes:
    """A JPEG file of which libjpeg says that bytes are extraneous before a marker, and that is decoded."""
    data = cv2.imencode(".jpg", RNG.integers(0, 256, (45, 67), dtype=np.uint8))[1].tobytes()
    at = data.index(b"\xff\xdb")
    return data[:at] + b"\1\2\3" + data[at:]


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded, in order."""
    files = []
    decode = images.decode

    def counted(data, *args, **options):
        files.append(data)
        return decode(data, *args, **options)

    monkeypatch.setattr(images, "decode", counted)
    return files


def test_a_message_belongs_to_the_image_that_is_decoded_alone(decoded, capfd):
    data = complaining()
    with Listener() as listener:
        reader = Reader(Decoding(), 2, listener)
        assert reader.decode(SOUND, SOURCE)[1] == []
        image, messages = reader.decode(data, SOURCE)
        assert reader.decode(SOUND, SOURCE)[1] == []
    assert image.shape == (45, 67)
    assert len(messages) == 1
    assert "extraneous" in messages[0]
    assert decoded == [SOUND, data, SOUND]  # each once


def test_images_that_are_decoded_at_the_same_time_are_told_apart(decoded, capfd):
    data = complaining()
    both_began, one_ended = threading.Barrier(2), threading.Event()
    results = {}
    with Listener() as listener:
        reader = Reader(Decoding(), 2, listener)

        def quiet():
            both_began.wait(10)
            assert one_ended.wait(10)
            return "quiet"

        def loud():
            both_began.wait(10)
            return images.decode(data, "a")

        def work(name, function):
            results[name] = reader.listen_to(function)
            one_ended.set()

        threads = [threading.Thread(target=work, args=pair) for pair in (("quiet", quiet), ("loud", loud))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [results[name][1] for name in ("quiet", "loud")] == [None, None]  # something was printed by either
        assert reader.messages(SOUND, SOURCE) == []
        assert "extraneous" in reader.messages(data, SOURCE)[0]


def test_without_a_listener_nothing_is_collected():
    reader = Reader(Decoding(), 1)
    assert reader.listen_to(lambda: 5) == (5, [])
    assert reader.messages(complaining(), SOURCE) == []
