import java.util.Arrays;
import java.util.Random;
import java.util.concurrent.Semaphore;
import org.apache.bookkeeper.client.AsyncCallback.AddCallback;
import org.apache.bookkeeper.client.BKException;
import org.apache.bookkeeper.client.BookKeeper;
import org.apache.bookkeeper.client.LedgerHandle;
import org.apache.bookkeeper.conf.ClientConfiguration;

/** Drives BookKeeper by its own client: METADATA-URI - WARM SECONDS.  One ledger, E3 W3 A2. */
public final class BookKeeperDriver {
  private static final int LONE = 1000;
  private static final byte[] PASSWORD = new byte[0];
  private static volatile long acked;
  private static volatile int failed = BKException.Code.OK;

  public static void main(String[] args) throws Exception {
    double warm = Double.parseDouble(args[2]), seconds = Double.parseDouble(args[3]);
    ClientConfiguration settings = new ClientConfiguration();
    settings.setMetadataServiceUri(args[0]);
    settings.setThrottleValue(0); // else 5,000 entries a second, however fast the bookies are
    try (BookKeeper client = new BookKeeper(settings)) {
      BookKeeper.DigestType digest = BookKeeper.DigestType.CRC32C;
      LedgerHandle ledger = client.createLedger(3, 3, 2, digest, PASSWORD);
      lone(ledger, warm, seconds);
      window(ledger, 100, warm, seconds);
      window(ledger, 1024, warm, seconds);
      ledger.close();
      try (LedgerHandle reader = client.openLedger(ledger.getId(), digest, PASSWORD)) {
        long held = reader.getLastAddConfirmed() + 1;
        System.out.printf("{\"test\": \"kept\", \"acked\": %d, \"held\": %d}%n", acked, held);
      }
    }
  }

  private static byte[] event(int size) {
    byte[] payload = new byte[size];
    new Random(size).nextBytes(payload);
    return payload;
  }

  private static void lone(LedgerHandle ledger, double warm, double seconds) throws Exception {
    byte[] event = event(1024);
    long[] times = new long[LONE];
    int n = 0;
    long began = System.nanoTime(), counted = began + (long) (warm * 1e9);
    long end = counted + (long) (seconds * 1e9);
    for (long started = began; n < LONE && started < end; ) {
      ledger.addEntry(event);
      acked++;
      long now = System.nanoTime();
      if (started >= counted) times[n++] = now - started;
      started = now;
    }
    long[] sorted = Arrays.copyOf(times, n);
    Arrays.sort(sorted);
    System.out.printf(
        "{\"test\": \"lone 1024B\", \"p50_us\": %d, \"p99_us\": %d, \"appends\": %d}%n",
        sorted[n / 2] / 1000, sorted[n * 99 / 100] / 1000, n);
  }

  private static void window(LedgerHandle ledger, int size, double warm, double seconds)
      throws Exception {
    int most = Math.max(64, 10_000 * 100 / size);
    Semaphore room = new Semaphore(most);
    byte[] event = event(size);
    // A ledger's callbacks run in one thread, the one that is chosen by its id.
    AddCallback count =
        (code, handle, entry, context) -> {
          if (code == BKException.Code.OK) acked++;
          else if (failed == BKException.Code.OK) failed = code; // the first one says why
          room.release();
        };
    long counted = System.nanoTime() + (long) (warm * 1e9);
    while (System.nanoTime() < counted) append(ledger, event, room, count);
    long from = System.nanoTime(), before = acked, end = from + (long) (seconds * 1e9);
    while (System.nanoTime() < end) append(ledger, event, room, count);
    double rate = (acked - before) / ((System.nanoTime() - from) / 1e9);
    room.acquire(most);
    if (failed != BKException.Code.OK) throw BKException.create(failed);
    System.out.printf("{\"test\": \"window %dB\", \"events_s\": %.0f}%n", size, rate);
  }

  private static void append(LedgerHandle ledger, byte[] event, Semaphore room, AddCallback count)
      throws InterruptedException {
    room.acquire();
    ledger.asyncAddEntry(event, count, null);
  }
}
