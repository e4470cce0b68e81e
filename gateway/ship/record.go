package ship

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/google/uuid"
)

// A segment is its magic, then records one after the other:
//
//	length u32 │ crc32c u32 │ kind u8 │ event id 16 bytes │ JSON
//	             └─────── over what follows, length bytes ──────┘
//
// Integers are little-endian. The last record of a segment whose writer was killed may be torn;
// reading stops there.
const (
	segmentMagic        = "WEIRSPL1"
	recordHead          = 8
	recordIDBytes       = 16
	recordBytesMin      = 1 + recordIDBytes
	recordBytesMax      = 64 << 10
	kindBegun      kind = 1
	kindEnded      kind = 2
)

type kind byte

var crcTable = crc32.MakeTable(crc32.Castagnoli)

var errTorn = errors.New("torn or damaged record")

// record is one line of the spool.
type record struct {
	kind kind
	id   uuid.UUID
	json []byte
}

func (r record) size() int64 { return int64(recordHead + recordBytesMin + len(r.json)) }

func (r record) append(to []byte) []byte {
	start := len(to)
	to = append(to, make([]byte, recordHead)...)
	to = append(to, byte(r.kind))
	to = append(to, r.id[:]...)
	to = append(to, r.json...)
	body := to[start+recordHead:]
	binary.LittleEndian.PutUint32(to[start:], uint32(len(body)))
	binary.LittleEndian.PutUint32(to[start+4:], crc32.Checksum(body, crcTable))
	return to
}

// readRecord reads the next record: io.EOF at a clean end, errTorn at a broken one.
func readRecord(from *bufio.Reader) (record, error) {
	var head [recordHead]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return record{}, io.EOF
		}
		return record{}, errTorn
	}
	length := binary.LittleEndian.Uint32(head[:])
	if length < recordBytesMin || length > recordBytesMax {
		return record{}, errTorn
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(from, body); err != nil {
		return record{}, errTorn
	}
	if crc32.Checksum(body, crcTable) != binary.LittleEndian.Uint32(head[4:]) {
		return record{}, errTorn
	}
	read := record{kind: kind(body[0]), json: body[recordBytesMin:]}
	copy(read.id[:], body[1:])
	return read, nil
}
