import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.Callback;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Drives Kafka by its own producer: ADDRESS TOPIC WARM SECONDS [name=value of the topic]. */
public final class KafkaDriver {
  private static final int LONE = 1000;
  private static volatile long acked;
  private static volatile Exception failed;

  // Runs in the producer's one network thread.
  private static final Callback COUNT =
      (where, error) -> {
        if (error != null) failed = error;
        else acked++;
      };

  public static void main(String[] args) throws Exception {
    String address = args[0], topic = args[1];
    double warm = Double.parseDouble(args[2]), seconds = Double.parseDouble(args[3]);
    Properties common = new Properties();
    common.put("bootstrap.servers", address);
    Map<String, String> settings = new HashMap<>();
    settings.put("min.insync.replicas", "2");
    for (int i = 4; i < args.length; i++) {
      String[] pair = args[i].split("=", 2);
      settings.put(pair[0], pair[1]);
    }
    try (Admin admin = Admin.create(common)) {
      NewTopic wanted = new NewTopic(topic, 1, (short) 3).configs(settings);
      admin.createTopics(List.of(wanted)).all().get();
    }
    try (KafkaProducer<byte[], byte[]> producer = producer(common, 0)) {
      lone(producer, topic, warm, seconds);
    }
    for (int size : new int[] {100, 1024}) {
      try (KafkaProducer<byte[], byte[]> producer = producer(common, 5)) {
        window(producer, topic, size, warm, seconds);
      }
    }
    common.put("key.deserializer", ByteArrayDeserializer.class);
    common.put("value.deserializer", ByteArrayDeserializer.class);
    try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(common)) {
      TopicPartition partition = new TopicPartition(topic, 0);
      long held = consumer.endOffsets(List.of(partition)).get(partition);
      System.out.printf("{\"test\": \"kept\", \"acked\": %d, \"held\": %d}%n", acked, held);
    }
  }

  private static KafkaProducer<byte[], byte[]> producer(Properties common, int lingerMs) {
    Properties all = new Properties();
    all.putAll(common);
    all.put("acks", "all");
    all.put("linger.ms", lingerMs);
    all.put("batch.size", 1 << 18);
    all.put("key.serializer", ByteArraySerializer.class);
    all.put("value.serializer", ByteArraySerializer.class);
    return new KafkaProducer<>(all);
  }

  private static ProducerRecord<byte[], byte[]> event(String topic, int size) {
    byte[] payload = new byte[size];
    new Random(size).nextBytes(payload);
    return new ProducerRecord<>(topic, 0, null, payload);
  }

  private static void lone(
      KafkaProducer<byte[], byte[]> producer, String topic, double warm, double seconds)
      throws Exception {
    ProducerRecord<byte[], byte[]> event = event(topic, 1024);
    long[] times = new long[LONE];
    int n = 0;
    long began = System.nanoTime(), counted = began + (long) (warm * 1e9);
    long end = counted + (long) (seconds * 1e9);
    for (long started = began; n < LONE && started < end; ) {
      producer.send(event, COUNT).get();
      long now = System.nanoTime();
      if (started >= counted) times[n++] = now - started;
      started = now;
    }
    long[] sorted = java.util.Arrays.copyOf(times, n);
    java.util.Arrays.sort(sorted);
    System.out.printf(
        "{\"test\": \"lone 1024B\", \"p50_us\": %d, \"p99_us\": %d, \"appends\": %d}%n",
        sorted[n / 2] / 1000, sorted[n * 99 / 100] / 1000, n);
  }

  private static void window(
      KafkaProducer<byte[], byte[]> producer, String topic, int size, double warm, double seconds)
      throws Exception {
    ProducerRecord<byte[], byte[]> event = event(topic, size);
    long counted = System.nanoTime() + (long) (warm * 1e9);
    while (System.nanoTime() < counted) producer.send(event, COUNT); // waits while the buffer is full
    long from = System.nanoTime(), before = acked, end = from + (long) (seconds * 1e9);
    while (System.nanoTime() < end) producer.send(event, COUNT);
    double rate = (acked - before) / ((System.nanoTime() - from) / 1e9);
    producer.flush();
    if (failed != null) throw failed;
    System.out.printf("{\"test\": \"window %dB\", \"events_s\": %.0f}%n", size, rate);
  }
}
