package ship

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/google/uuid"
)

const (
	segmentBytes = 4 << 20
	lockName     = "LOCK"
	segmentGlob  = "*.seg"
)

var (
	errSpoolFull = errors.New("the spool is full")
	// errSpoolLingers is passing: the sender of an earlier configuration still works it off.
	errSpoolLingers = errors.New("the spool is still in use by an earlier configuration")
)

// ours are the folders that this process has locked.
var ours sync.Map

// spool keeps events on disk: a folder of segments, written at the end and read from the front.
//
//	00…1.seg  00…2.seg  00…3.seg
//	     ▲ acknowledged      ▲ written
//
// Each request writes that it begins before the upstream is called, and its event when it has
// ended; who is killed in between finds at the next start which requests had begun and reports
// them as aborted. A segment goes when everything in it is acknowledged and no request that began
// in it still runs. A record is in the kernel's hands when put returns, so kill -9 loses none; sync
// is called every moment against power cuts. Putting may be done by many, reading and
// acknowledging by one.
type spool struct {
	dir      string
	bytesMax int64
	lock     *os.File

	mu       sync.Mutex
	segments []*segment
	acked    position
	bytes    int64
	// pending are ended events that are not acknowledged.
	pending int
	// ended counts events that were ever put.
	ended  uint64
	buffer []byte
	closed bool
	// gone is closed with the spool.
	gone chan struct{}
}

type segment struct {
	seq  uint64
	file *os.File
	size int64
	// open requests began in it.
	open int
	// retired says that it could not be written once, and is only read.
	retired bool
	// dirty says that what was written may not be on the disk itself.
	dirty bool
}

// position is a place between two records.
type position struct {
	seq    uint64
	offset int64
}

// openSpool locks the folder, which one process may use at a time, and recovers what is in it.
func openSpool(dir string, bytesMax int64) (*spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the spool's folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the spool's lock: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if _, mine := ours.Load(dir); mine {
			return nil, errSpoolLingers
		}
		return nil, fmt.Errorf("the spool %s is in use by another process: %w", dir, err)
	}
	s := &spool{dir: dir, bytesMax: bytesMax, lock: lock, gone: make(chan struct{})}
	ours.Store(dir, s)
	if err := s.recover(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// begin notes that a request starts; its segment is handed to end.
func (s *spool) begin(id uuid.UUID, json []byte) (in uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, err := s.put(record{kind: kindBegun, id: id, json: json})
	if err != nil {
		return 0, err
	}
	at.open++
	return at.seq, nil
}

// end puts an event; began is what begin gave, 0 when there was none.
func (s *spool) end(id uuid.UUID, json []byte, began uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.put(record{kind: kindEnded, id: id, json: json}); err != nil {
		return err
	}
	s.pending++
	s.ended++
	s.release(began)
	return nil
}

// release says that a request which began in a segment needs it no longer.
func (s *spool) release(began uint64) {
	for _, segment := range s.segments {
		if segment.seq == began {
			segment.open--
		}
	}
}

// abandon is end for an event that went elsewhere.
func (s *spool) abandon(began uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(began)
}

// put writes one record; [os.ErrClosed] says that the spool is given back. Called with the lock held.
func (s *spool) put(r record) (*segment, error) {
	if s.closed {
		return nil, os.ErrClosed
	}
	if len(r.json) > recordBytesMax-recordBytesMin {
		return nil, fmt.Errorf("an event of %d bytes is too large for the spool", len(r.json))
	}
	if s.bytes+r.size() > s.bytesMax {
		return nil, errSpoolFull
	}
	active := s.segments[len(s.segments)-1]
	if active.retired || active.size+r.size() > segmentBytes {
		next, err := s.addSegment(active.seq + 1)
		if err != nil {
			return nil, err
		}
		active = next
	}
	s.buffer = r.append(s.buffer[:0])
	if _, err := active.file.WriteAt(s.buffer, active.size); err != nil {
		// Half a record would hide those after it; the next one goes to another segment unless
		// this one can be cut back.
		if cut := active.file.Truncate(active.size); cut != nil {
			active.retired = true
		}
		return nil, fmt.Errorf("writing the spool: %w", err)
	}
	active.size += r.size()
	s.bytes += r.size()
	active.dirty = true
	return active, nil
}

func (s *spool) addSegment(seq uint64) (*segment, error) {
	name := filepath.Join(s.dir, fmt.Sprintf("%016x.seg", seq))
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting a segment of the spool: %w", err)
	}
	if _, err := file.WriteAt([]byte(segmentMagic), 0); err != nil {
		file.Close()
		os.Remove(name)
		return nil, fmt.Errorf("starting a segment of the spool: %w", err)
	}
	added := &segment{seq: seq, file: file, size: int64(len(segmentMagic))}
	s.segments = append(s.segments, added)
	s.bytes += added.size
	return added, nil
}

// next reads up to `most` ended events after the acknowledged position, and says which position
// acknowledges them and whether more wait than were read.
func (s *spool) next(most int, bytesMax int) (found []record, at position, more bool, err error) {
	s.mu.Lock()
	at = s.acked
	type window struct {
		seq  uint64
		file *os.File
		size int64
	}
	windows := make([]window, 0, len(s.segments))
	for _, segment := range s.segments {
		if segment.seq >= at.seq {
			windows = append(windows, window{segment.seq, segment.file, segment.size})
		}
	}
	s.mu.Unlock()

	bytes := 0
	for _, w := range windows {
		offset := int64(len(segmentMagic))
		if w.seq == at.seq {
			offset = max(at.offset, offset)
		}
		at = position{w.seq, offset}
		section := io.NewSectionReader(w.file, offset, w.size-offset)
		reader := bufio.NewReaderSize(section, 256<<10)
		for {
			r, err := readRecord(reader)
			if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
				break
			}
			if err != nil {
				return nil, position{}, false, err
			}
			if r.kind == kindEnded {
				if len(found) == most || bytes+len(r.json) > bytesMax && len(found) > 0 {
					return found, at, true, nil
				}
				found = append(found, r)
				bytes += len(r.json)
			}
			at.offset += r.size()
		}
	}
	return found, at, false, nil
}

// ack forgets count events up to a position that next gave.
func (s *spool) ack(to position, count int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked = to
	s.pending -= count
	if err := s.writeAcked(); err != nil {
		return err
	}
	kept := s.segments[:0:0]
	last := len(s.segments) - 1
	for i, segment := range s.segments {
		if i < last && segment.seq < to.seq && segment.open == 0 {
			s.drop(segment)
			continue
		}
		kept = append(kept, segment)
	}
	s.segments = kept
	return nil
}

func (s *spool) drop(gone *segment) {
	gone.file.Close()
	// What cannot be removed is read again at the next start and counted once by its ids.
	_ = os.Remove(gone.file.Name())
	s.bytes -= gone.size
}

// resize sets the bound of a running spool.
func (s *spool) resize(bytesMax int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytesMax = bytesMax
}

// puts is how many events were ever put; see closeUnlessPut.
func (s *spool) puts() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

func (s *spool) counts() (pending int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending, s.bytes
}

// sync brings what was put to the disk itself.
func (s *spool) sync() error {
	var failures error
	for _, file := range s.unsynced() {
		// A segment that was done meanwhile is closed.
		if err := file.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
			failures = errors.Join(failures, fmt.Errorf("syncing the spool: %w", err))
		}
	}
	return failures
}

// unsynced takes the files that sync must bring to the disk: the active segment's, and those that
// were full since the last time. A request that fills one does not wait for that.
func (s *spool) unsynced() []*os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	var files []*os.File
	for _, segment := range s.segments {
		if segment.dirty {
			segment.dirty = false
			files = append(files, segment.file)
		}
	}
	return files
}

// closeUnlessPut closes the spool to events if none was put since puts gave a number.
func (s *spool) closeUnlessPut(since uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != since {
		return false
	}
	s.closed = true
	return true
}

func (s *spool) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	close(s.gone)
	for _, segment := range s.segments {
		segment.file.Close()
	}
	s.lock.Close()
	ours.CompareAndDelete(s.dir, s)
}
