package ship

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

const (
	ackedName  = "acked"
	ackedBytes = 20
)

// recover reads what an earlier process left: where it was acknowledged, how many events wait, and
// which requests had begun and never ended; those are put as events again, at the end of a new
// segment, so that a second kill on the way changes nothing.
func (s *spool) recover() error {
	acked, err := s.readAcked()
	if err != nil {
		return err
	}
	s.acked = acked
	names, err := filepath.Glob(filepath.Join(s.dir, segmentGlob))
	if err != nil {
		return fmt.Errorf("listing the spool: %w", err)
	}
	sort.Strings(names)
	begun := map[uuid.UUID][]byte{}
	newest := acked.seq
	for _, name := range names {
		text := strings.TrimSuffix(filepath.Base(name), ".seg")
		seq, err := strconv.ParseUint(text, 16, 64)
		if err != nil {
			return fmt.Errorf("the spool holds %s, which is no segment of it", name)
		}
		if err := s.scan(name, seq, begun); err != nil {
			return err
		}
		newest = max(newest, seq)
	}
	if _, err := s.addSegment(newest + 1); err != nil {
		return err
	}
	// Events that had begun are put whatever the size of the spool: they are in it already.
	limit := s.bytesMax
	s.bytesMax = 1<<63 - 1
	defer func() { s.bytesMax = limit }()
	for id, json := range begun {
		if _, err := s.put(record{kind: kindEnded, id: id, json: json}); err != nil {
			return err
		}
		s.pending++
	}
	return s.sync()
}

// scan takes in one old segment.
func (s *spool) scan(name string, seq uint64, begun map[uuid.UUID][]byte) error {
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("opening a segment of the spool: %w", err)
	}
	found := &segment{seq: seq, file: file, size: int64(len(segmentMagic)), retired: true}
	s.segments = append(s.segments, found)
	reader := bufio.NewReaderSize(file, 256<<10)
	magic := make([]byte, len(segmentMagic))
	if _, err := io.ReadFull(reader, magic); err != nil {
		// Killed while it was started: nothing is in it.
		s.bytes += found.size
		return nil
	}
	if string(magic) != segmentMagic {
		return fmt.Errorf("%s is not a segment that this version can read", name)
	}
	for {
		r, err := readRecord(reader)
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the spool: %w", err)
		}
		at := position{seq, found.size}
		switch r.kind {
		case kindBegun:
			begun[r.id] = r.json
		case kindEnded:
			delete(begun, r.id)
			if !at.before(s.acked) {
				s.pending++
			}
		}
		found.size += r.size()
	}
	s.bytes += found.size
	return nil
}

func (p position) before(other position) bool {
	return p.seq < other.seq || p.seq == other.seq && p.offset < other.offset
}

func (s *spool) readAcked() (position, error) {
	bytes, err := os.ReadFile(filepath.Join(s.dir, ackedName))
	if errors.Is(err, os.ErrNotExist) {
		return position{}, nil
	}
	if err != nil {
		return position{}, fmt.Errorf("reading the spool's position: %w", err)
	}
	sum := uint32(0)
	if len(bytes) == ackedBytes {
		sum = binary.LittleEndian.Uint32(bytes[16:])
	}
	if len(bytes) != ackedBytes || crc32.Checksum(bytes[:16], crcTable) != sum {
		// From the front then: ids make what is sent again count once.
		return position{}, nil
	}
	return position{
		seq:    binary.LittleEndian.Uint64(bytes),
		offset: int64(binary.LittleEndian.Uint64(bytes[8:])),
	}, nil
}

// writeAcked replaces the position whole, so that a kill leaves the old or the new one.
func (s *spool) writeAcked() error {
	var bytes [ackedBytes]byte
	binary.LittleEndian.PutUint64(bytes[:], s.acked.seq)
	binary.LittleEndian.PutUint64(bytes[8:], uint64(s.acked.offset))
	binary.LittleEndian.PutUint32(bytes[16:], crc32.Checksum(bytes[:16], crcTable))
	name := filepath.Join(s.dir, ackedName)
	if err := os.WriteFile(name+".new", bytes[:], 0o600); err != nil {
		return fmt.Errorf("writing the spool's position: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("writing the spool's position: %w", err)
	}
	return nil
}
