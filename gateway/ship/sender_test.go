package ship

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"weir/gateway/internal/fakeweir"
)

func newFake(t *testing.T) *fakeweir.Server {
	t.Helper()
	fake := fakeweir.New()
	t.Cleanup(fake.Close)
	return fake
}

var quick = Tuning{Flush: 20 * time.Millisecond, Batch: 10, Buffer: 1000, SpoolBytesMax: 64 << 20}

func newSender(t *testing.T, fake *fakeweir.Server, spool string, tuning Tuning) *Sender {
	t.Helper()
	s := New(spool, Destination{Endpoints: []string{fake.URL}, Token: fakeweir.Token}, tuning, nil)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

func event() *Event {
	return &Event{
		ID: uuid.Must(uuid.NewV7()), SubscriptionKey: "key", Timestamp: time.Now().UTC(),
		Path: "/", Method: "GET", Status: 200, Outcome: OutcomeServed,
	}
}

func until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatal("did not happen in time")
		}
		time.Sleep(time.Millisecond)
	}
}

func recorded(fake *fakeweir.Server) int {
	events, _ := fake.Ledger()
	return len(events)
}

func TestEventsArriveOnceWhateverHappensToAnswers(t *testing.T) {
	t.Parallel()
	for name, spool := range map[string]bool{"memory": false, "spool": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake, dir := newFake(t), ""
			if spool {
				dir = t.TempDir()
			}
			var tries atomic.Int64
			fake.Break(func(string) fakeweir.Fault {
				switch tries.Add(1) {
				case 1, 4:
					return fakeweir.Fault{Status: http.StatusServiceUnavailable}
				case 2, 5:
					return fakeweir.Fault{LoseAnswer: true}
				default:
					return fakeweir.Fault{}
				}
			})
			s := newSender(t, fake, dir, quick)
			for range 95 {
				s.Put(event())
			}
			until(t, func() bool { return recorded(fake) == 95 })
			s.Close(10 * time.Second)
			if recorded(fake) != 95 {
				t.Errorf("%d events in the ledger, not 95", recorded(fake))
			}
			// A batch is tried again as it was, with the ids that it had.
			batches := fake.Batches()
			for i := 1; i < 3; i++ {
				if len(batches[i]) != len(batches[0]) || batches[i][0] != batches[0][0] {
					t.Errorf("try %d sent another batch", i+1)
				}
			}
		})
	}
}

func TestABufferThatIsFullDropsAndCountsAndNobodyWaits(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	hang := make(chan struct{})
	fake.Break(func(string) fakeweir.Fault { return fakeweir.Fault{Wait: hang} })
	s := newSender(t, fake, "", Tuning{Flush: time.Millisecond, Batch: 10, Buffer: 50})
	for range 500 {
		s.Put(event())
	}
	close(hang)
	s.Close(10 * time.Second)
	if got := recorded(fake); got != 50 {
		t.Errorf("%d events in the ledger; the buffer holds 50", got)
	}
}

func TestOneBadEventDoesNotHoldUpItsNeighbours(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	s := newSender(t, fake, t.TempDir(), Tuning{Flush: time.Hour, Batch: 100, Buffer: 100, SpoolBytesMax: 64 << 20})
	for i := range 33 {
		one := event()
		if i == 17 {
			fake.Poison(one.ID.String())
		}
		s.Put(one)
	}
	s.Close(10 * time.Second)
	if got := recorded(fake); got != 32 {
		t.Errorf("%d of 32 good events are in the ledger", got)
	}
}

func TestEventsAreDroppedForANodesWordAlone(t *testing.T) {
	t.Parallel()
	for _, status := range []int{
		http.StatusBadRequest, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity,
	} {
		fake := newFake(t)
		var tries atomic.Int64
		fake.Break(func(string) (fault fakeweir.Fault) {
			if tries.Add(1) < 3 {
				fault.Status = status
			}
			return fault
		})
		s := newSender(t, fake, "", quick)
		for range 4 {
			s.Put(event())
		}
		s.Close(10 * time.Second)
		if got := recorded(fake); got != 4 {
			t.Errorf("%d of 4 events arrived after some server answered %d", got, status)
		}
	}
	for _, c := range []struct {
		status         int
		problem, wrong bool
	}{
		{http.StatusBadRequest, true, true}, {http.StatusBadRequest, false, false},
		{http.StatusRequestEntityTooLarge, false, true}, {http.StatusServiceUnavailable, true, false},
	} {
		if got := isContent(&refusedError{status: c.status, problem: c.problem}); got != c.wrong {
			t.Errorf("%d, a problem document %v: %v", c.status, c.problem, got)
		}
	}
}

func TestASpoolTakesUpWhereAKilledProcessStopped(t *testing.T) {
	t.Parallel()
	fake, dir := newFake(t), t.TempDir()
	// What a killed process leaves: ended events, one request that had begun, half a record.
	disk, err := openSpool(dir, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	ended := map[string]bool{}
	for range 25 {
		one := event()
		ended[one.ID.String()] = true
		json, _ := one.encode()
		began, err := disk.begin(one.ID, json)
		if err != nil {
			t.Fatal(err)
		}
		if err := disk.end(one.ID, json, began); err != nil {
			t.Fatal(err)
		}
	}
	running := event()
	running.Outcome = OutcomeAborted
	json, _ := running.encode()
	if _, err := disk.begin(running.ID, json); err != nil {
		t.Fatal(err)
	}
	active := disk.segments[len(disk.segments)-1]
	if _, err := active.file.WriteAt([]byte{200, 0, 0, 0, 1, 2}, active.size); err != nil {
		t.Fatal(err)
	}
	// Ten were acknowledged.
	records, position, _, err := disk.next(10, batchBytesMax)
	if err != nil || len(records) != 10 {
		t.Fatal(len(records), err)
	}
	if err := disk.ack(position, 10); err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		delete(ended, r.id.String())
	}
	disk.close()

	s := newSender(t, fake, dir, quick)
	until(t, func() bool { return recorded(fake) == 16 })
	s.Close(10 * time.Second)
	events, _ := fake.Ledger()
	for id := range ended {
		if events[id] == nil {
			t.Errorf("event %s is lost", id)
		}
	}
	if events[running.ID.String()] == nil || len(events) != 16 {
		t.Errorf("%d events arrived; want 15 that had ended and the one that had begun", len(events))
	}
	// Nothing is left for a third process.
	again := newSender(t, fake, dir, quick)
	again.Close(10 * time.Second)
	if _, doubles := fake.Ledger(); doubles != 0 {
		t.Errorf("%d events were sent again", doubles)
	}
}

func TestAStoppedSenderKeepsItsSpoolForTheNext(t *testing.T) {
	t.Parallel()
	fake, dir := newFake(t), t.TempDir()
	fake.Break(func(string) fakeweir.Fault { return fakeweir.Fault{Status: http.StatusServiceUnavailable} })
	s := newSender(t, fake, dir, quick)
	for range 30 {
		one := event()
		s.End(s.Begin(one), one)
	}
	s.Close(time.Millisecond)
	fake.Break(nil)
	next := newSender(t, fake, dir, quick)
	until(t, func() bool { return recorded(fake) == 30 })
	next.Close(10 * time.Second)
}

func TestAFullSpoolOverflowsIntoMemory(t *testing.T) {
	t.Parallel()
	fake, dir := newFake(t), t.TempDir()
	s := newSender(t, fake, dir, Tuning{Flush: time.Hour, Batch: 1000, Buffer: 1000, SpoolBytesMax: 2000})
	for range 40 {
		s.Put(event())
	}
	if _, bytes := s.spool.Load().counts(); bytes > 2000 {
		t.Errorf("the spool has %d bytes, at most 2000", bytes)
	}
	s.Close(10 * time.Second)
	if recorded(fake) != 40 {
		t.Errorf("%d of 40 events arrived", recorded(fake))
	}
}

func TestSegmentsGoWhenTheyAreDone(t *testing.T) {
	t.Parallel()
	fake, dir := newFake(t), t.TempDir()
	s := newSender(t, fake, dir, Tuning{Flush: 5 * time.Millisecond, Batch: 500, Buffer: 10, SpoolBytesMax: 1 << 30})
	long := event()
	ticket := s.Begin(long)
	const count = 2000
	filler := make([]byte, 8<<10)
	for i := range filler {
		filler[i] = 'x'
	}
	for range count {
		one := event()
		one.Path = string(filler)
		s.Put(one)
	}
	until(t, func() bool { return recorded(fake) == count })
	segments := func() int {
		names, _ := filepath.Glob(filepath.Join(dir, segmentGlob))
		return len(names)
	}
	// 16 MB passed; the segment in which a request still runs stays, and the one being written.
	until(t, func() bool { return segments() <= 2 })
	s.End(ticket, long)
	until(t, func() bool { return recorded(fake) == count+1 })
	s.Close(10 * time.Second)
	if names, _ := os.ReadDir(dir); len(names) == 0 {
		t.Error("the lock is gone")
	}
}

func TestAReloadedSenderTakesWhatComesLate(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	s := newSender(t, fake, "", Tuning{Flush: time.Hour, Batch: 1000, Buffer: 1000})
	s.Enter()
	early := event()
	ticket := s.Begin(early)
	s.Close(0)
	var group sync.WaitGroup
	for range 20 {
		group.Add(1)
		go func() { defer group.Done(); s.Put(event()) }()
	}
	group.Wait()
	s.End(ticket, early)
	s.Leave()
	until(t, func() bool { return recorded(fake) == 21 })
	// Its goroutine has ended or will; what comes now is sent all the same.
	s.Put(event())
	until(t, func() bool { return recorded(fake) == 22 })
}

// syncing counts goroutines that bring a spool to the disk. Only tests that run alone may ask.
func syncing() int {
	stacks := make([]byte, 1<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "syncSpool(")
}

func TestNothingRunsOnForASpoolThatIsGivenBack(t *testing.T) {
	fake := newFake(t)
	s := newSender(t, fake, t.TempDir(), quick)
	s.Put(event())
	until(t, func() bool { return syncing() == 1 })
	s.Close(10 * time.Second)
	until(t, func() bool { return syncing() == 0 })
}

func TestASenderEndsOnlyWhenNothingCameMeanwhile(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	closing := func(dir string) *Sender {
		s := New(dir, Destination{Endpoints: []string{fake.URL}, Token: fakeweir.Token}, quick, nil)
		if err := s.open(); err != nil {
			t.Fatal(err)
		}
		s.running = true
		return s
	}
	s := closing(t.TempDir())
	disk := s.spool.Load()
	seen := disk.puts()
	s.Enter()
	if s.finish(disk, seen) {
		t.Error("ended although a request had come")
	}
	s.Leave()
	s.Put(event())
	if s.finish(disk, seen) {
		t.Error("ended although the spool had taken an event")
	}
	if !s.finish(disk, disk.puts()) || s.running || s.spool.Load() != nil {
		t.Error("did not end although nothing came")
	}
	// A request that holds the spool still does not write behind its end.
	one := event()
	json, _ := one.encode()
	if err := disk.end(one.ID, json, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed spool took an event: %v", err)
	}
	if _, err := disk.begin(one.ID, json); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed spool took a request: %v", err)
	}
	s.give(disk)
	memory := closing("")
	memory.Put(event())
	if memory.finish(nil, 0) {
		t.Error("ended although memory had an event")
	}
}

func TestTheEndOfTheProcessWaitsForASenderThatWasRevived(t *testing.T) {
	t.Parallel()
	fake := newFake(t)
	s := newSender(t, fake, "", Tuning{Flush: time.Hour, Batch: 1000, Buffer: 1000})
	s.Close(0)
	lingers := func() bool { _, ok := lingering.Load(s); return ok }
	until(t, func() bool { return !lingers() })
	hang := make(chan struct{})
	fake.Break(func(string) fakeweir.Fault { return fakeweir.Fault{Wait: hang} })
	s.Put(event())
	if !lingers() {
		t.Error("nobody would wait for it")
	}
	close(hang)
	until(t, func() bool { return recorded(fake) == 1 && !lingers() })
}

func TestWhatComesWhileABatchIsSentMakesTheNext(t *testing.T) {
	t.Parallel()
	for name, spool := range map[string]bool{"memory": false, "spool": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake, dir := newFake(t), ""
			if spool {
				dir = t.TempDir()
			}
			s := New(dir, Destination{Endpoints: []string{fake.URL}, Token: fakeweir.Token}, quick, nil)
			if err := s.open(); err != nil {
				t.Fatal(err)
			}
			fake.Break(func(string) fakeweir.Fault {
				s.Put(event())
				return fakeweir.Fault{}
			})
			for range 25 {
				s.Put(event())
			}
			s.sendAll()
			// 10, 10, and the 5 with the 2 that had come; the one that came during the third waits.
			sizes := []int{}
			for _, batch := range fake.Batches() {
				sizes = append(sizes, len(batch))
			}
			if !slices.Equal(sizes, []int{10, 10, 7}) {
				t.Errorf("batches of %v", sizes)
			}
			if disk := s.spool.Load(); disk != nil {
				disk.close()
			}
		})
	}
}

func TestASegmentThatIsFullReachesTheDiskToo(t *testing.T) {
	t.Parallel()
	disk, err := openSpool(t.TempDir(), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.close()
	one := event()
	one.Path = strings.Repeat("x", 60<<10)
	json, _ := one.encode()
	for len(disk.segments) < 3 {
		if err := disk.end(one.ID, json, 0); err != nil {
			t.Fatal(err)
		}
	}
	if files := disk.unsynced(); len(files) != 3 {
		t.Errorf("%d of 3 segments are brought to the disk", len(files))
	}
	if files := disk.unsynced(); len(files) != 0 {
		t.Errorf("%d are brought there again", len(files))
	}
}

func TestADamagedRecordEndsASegmentAndNotTheSpool(t *testing.T) {
	t.Parallel()
	fake, dir := newFake(t), t.TempDir()
	for range 2 {
		disk, err := openSpool(dir, 64<<20)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			one := event()
			json, _ := one.encode()
			if err := disk.end(one.ID, json, 0); err != nil {
				t.Fatal(err)
			}
		}
		disk.close()
	}
	// The last byte of the first process's segment is another one now.
	name := filepath.Join(dir, "0000000000000001.seg")
	bytes, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	bytes[len(bytes)-1] ^= 1
	if err := os.WriteFile(name, bytes, 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSender(t, fake, dir, quick)
	s.Close(10 * time.Second)
	if recorded(fake) != 5 {
		t.Errorf("%d events arrived; one of six is damaged", recorded(fake))
	}
}
