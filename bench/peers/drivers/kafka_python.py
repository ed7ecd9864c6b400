"""Drives Kafka by confluent-kafka: ADDRESS TOPIC WARM SECONDS [name=value of the topic]."""

from __future__ import annotations

import sys

import work
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

BATCH = 500


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


def main() -> None:
    address, topic, warm, seconds = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:5])
    make_topic(address, topic, sys.argv[5:])
    acks = Acks()
    settings = {
        "bootstrap.servers": address,
        "acks": "all",
        "enable.idempotence": True,
        "batch.size": 1 << 18,
        "queue.buffering.max.messages": 200_000,
    }
    producer = Producer({**settings, "linger.ms": 0})
    payload, lone = work.event(work.LONE_BYTES), work.Lone(warm, seconds)
    while lone.goes_on:
        producer.produce(topic, payload, partition=0, on_delivery=acks)
        producer.flush()
        lone.done()
    lone.show()
    for size in work.SIZES:
        producer = Producer({**settings, "linger.ms": 5})
        many = [{"value": work.event(size)}] * BATCH
        window = work.Window(size, warm, seconds)
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
