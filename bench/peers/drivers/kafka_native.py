"""Drives Kafka by librdkafka itself: ADDRESS TOPIC WARM SECONDS [name=value of the topic].

The library is the one in the wheel of confluent-kafka, whose own calls cost a piece of Python for each
event and each acknowledgement; here both come by the batch: `rd_kafka_produce_batch`, and delivery
reports as events that say how many messages they are about.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import confluent_kafka
import work
from kafka_python import LINGER_MS, LONE_LINGER_MS, end_offset, make_topic, producing

BATCH = 1000
IN_FLIGHT = 200_000
DELIVERY_REPORTS = 0x1
PRODUCER = 0
TEXT = 512


class Message(ctypes.Structure):
    """`rd_kafka_message_t`."""

    _fields_ = (
        ("err", ctypes.c_int),
        ("topic", ctypes.c_void_p),
        ("partition", ctypes.c_int32),
        ("payload", ctypes.c_char_p),
        ("len", ctypes.c_size_t),
        ("key", ctypes.c_char_p),
        ("key_len", ctypes.c_size_t),
        ("offset", ctypes.c_int64),
        ("private", ctypes.c_void_p),
    )


def library() -> ctypes.CDLL:
    """The library beside the package, which has loaded it."""
    bundled = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    found = ctypes.CDLL(str(next(bundled.glob("librdkafka-*"))))
    pointers = ("conf_new", "new", "topic_new", "queue_get_main", "queue_poll")
    for name in pointers:
        getattr(found, f"rd_kafka_{name}").restype = ctypes.c_void_p
    found.rd_kafka_event_message_count.restype = ctypes.c_size_t
    found.rd_kafka_event_message_array.restype = ctypes.c_size_t
    return found


class Producer:
    """A producer of one topic that counts its acknowledgements."""

    def __init__(self, lib: ctypes.CDLL, topic: str, settings: dict[str, object]) -> None:
        self.lib, self.acked = lib, 0
        text = ctypes.create_string_buffer(TEXT)
        config = ctypes.c_void_p(lib.rd_kafka_conf_new())
        for pair in settings.items():
            name, value = (str(word).encode() for word in pair)
            if lib.rd_kafka_conf_set(config, name, value, text, ctypes.c_size_t(TEXT)):
                raise SystemExit(text.value.decode())
        lib.rd_kafka_conf_set_events(config, DELIVERY_REPORTS)
        self.handle = ctypes.c_void_p(
            lib.rd_kafka_new(PRODUCER, config, text, ctypes.c_size_t(TEXT))
        )
        if not self.handle:
            raise SystemExit(text.value.decode())
        self.topic = ctypes.c_void_p(lib.rd_kafka_topic_new(self.handle, topic.encode(), None))
        self.queue = ctypes.c_void_p(lib.rd_kafka_queue_get_main(self.handle))
        self.one = (ctypes.POINTER(Message) * 1)()

    def send(self, messages: ctypes.Array[Message]) -> int:
        """Queue messages, whose payloads stay where they are: how many had room."""
        return self.lib.rd_kafka_produce_batch(self.topic, 0, 0, messages, len(messages))

    def poll(self, wait_ms: int) -> None:
        """Count what one report says; the messages of a report share their fate."""
        event = ctypes.c_void_p(self.lib.rd_kafka_queue_poll(self.queue, wait_ms))
        if not event:
            return
        count = self.lib.rd_kafka_event_message_count(event)
        if count:
            self.lib.rd_kafka_event_message_array(event, self.one, ctypes.c_size_t(1))
            if self.one[0].contents.err:
                raise SystemExit(f"not acknowledged: error {self.one[0].contents.err}")
        self.acked += count
        self.lib.rd_kafka_event_destroy(event)

    def close(self) -> int:
        """End it: all that was acknowledged."""
        self.lib.rd_kafka_topic_destroy(self.topic)
        self.lib.rd_kafka_queue_destroy(self.queue)
        self.lib.rd_kafka_destroy(self.handle)
        return self.acked


def batch(payload: bytes, many: int) -> ctypes.Array[Message]:
    """Messages that all have one payload."""
    messages = (Message * many)()
    for message in messages:
        message.payload, message.len = payload, len(payload)
    return messages


def lone(producer: Producer, spans: work.Spans) -> int:
    """One append after another."""
    clock, one = work.Lone(spans), batch(work.event(work.LONE_BYTES), 1)
    while clock.goes_on:
        producer.send(one)
        while producer.acked == clock.acked:
            producer.poll(1000)
        clock.done()
    clock.show()
    return producer.close()


def window(producer: Producer, size: int, spans: work.Spans) -> int:
    """As many in flight as the library takes."""
    clock, many, sent = work.Window(size, spans), batch(work.event(size), BATCH), 0
    while clock.goes_on:
        if sent - producer.acked < IN_FLIGHT:
            sent += producer.send(many)
            producer.poll(0)
        else:
            producer.poll(10)
        clock.tick(producer.acked)
    while producer.acked < sent:
        producer.poll(1000)
    clock.show()
    return producer.close()


def main() -> None:
    address, topic, spans, pairs = work.words()
    make_topic(address, topic, pairs)
    lib, queued_max = library(), IN_FLIGHT + BATCH
    acked = lone(Producer(lib, topic, producing(address, queued_max, LONE_LINGER_MS)), spans)
    for size in work.SIZES:
        producer = Producer(lib, topic, producing(address, queued_max, LINGER_MS))
        acked += window(producer, size, spans)
    work.row(test="kept", acked=acked, held=end_offset(address, topic))


if __name__ == "__main__":
    main()
