"""Drives Kafka by confluent-kafka: ADDRESS TOPIC WARM SECONDS [name=value of the topic]."""

from __future__ import annotations

import work
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

BATCH = 500
QUEUED_MAX = 200_000
LONE_LINGER_MS, LINGER_MS = 0, 5


class Acks:
    """Counts what was acknowledged."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: object, message: object) -> None:
        if error is not None:
            raise SystemExit(f"not acknowledged: {error}")
        self.count += 1


def make_topic(address: str, topic: str, pairs: list[str]) -> None:
    """One partition, three replicas, two of them in sync at least."""
    config = {"min.insync.replicas": "2", **dict(pair.split("=", 1) for pair in pairs)}
    admin = AdminClient({"bootstrap.servers": address})
    for made in admin.create_topics([NewTopic(topic, 1, 3, config=config)]).values():
        made.result()


def end_offset(address: str, topic: str) -> int:
    """How many events the topic holds."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "peers"})
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0))
    consumer.close()
    return end


def producing(address: str, queued_max: int, linger_ms: int) -> dict[str, object]:
    """Settings of a producer."""
    return {
        "bootstrap.servers": address,
        "acks": "all",
        "enable.idempotence": "true",
        "batch.size": 1 << 18,
        "queue.buffering.max.messages": queued_max,
        "linger.ms": linger_ms,
    }


def main() -> None:
    address, topic, spans, pairs = work.words()
    make_topic(address, topic, pairs)
    acks = Acks()
    producer = Producer(producing(address, QUEUED_MAX, LONE_LINGER_MS))
    payload, lone = work.event(work.LONE_BYTES), work.Lone(spans)
    while lone.goes_on:
        producer.produce(topic, payload, partition=0, on_delivery=acks)
        producer.flush()
        lone.done()
    lone.show()
    for size in work.SIZES:
        producer = Producer(producing(address, QUEUED_MAX, LINGER_MS))
        many = [{"value": work.event(size)}] * BATCH
        window = work.Window(size, spans)
        sent = acks.count
        while window.goes_on:
            sent += producer.produce_batch(topic, many, partition=0, on_delivery=acks)
            producer.poll(0)
            while sent - acks.count > 100_000:
                producer.poll(0.01)
            window.tick(acks.count)
        producer.flush()
        window.show()
    work.row(test="kept", acked=acks.count, held=end_offset(address, topic))


if __name__ == "__main__":
    main()
