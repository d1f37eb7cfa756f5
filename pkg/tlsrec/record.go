package tlsrec

import "encoding/binary"

// recordType is the content type of a record.
type recordType uint8

// The content types of RFC 8446 section 5.1.
const (
	typeChangeCipherSpec recordType = 20
	typeAlert            recordType = 21
	typeHandshake        recordType = 22
	typeApplicationData  recordType = 23
)

const (
	headLen = 5
	// maxContent is the most that one record carries.
	maxContent = 16 << 10
	// maxSealed is the most that may follow a record's head.
	maxSealed = maxContent + 256
	// overhead is what a record adds to its content when it is not padded.
	overhead = headLen + 1 + tagLen
)

// Handshake messages that may follow a handshake.
const (
	messageNewSessionTicket = 4
	messageKeyUpdate        = 24
)

// recordLen is the length of what a head announces, without the head.
func recordLen(head []byte) int { return int(binary.BigEndian.Uint16(head[3:])) }
