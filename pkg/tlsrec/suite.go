package tlsrec

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"
)

// suite is what a cipher suite of TLS 1.3 says about records.
type suite struct {
	id     uint16
	keyLen int
	hash   func() hash.Hash
	aead   func(key []byte) (cipher.AEAD, error)
}

// suiteOf returns nil for a suite that is not known here.
func suiteOf(id uint16) *suite {
	switch id {
	case tls.TLS_AES_128_GCM_SHA256:
		return &suite{id, 16, sha256.New, gcm}
	case tls.TLS_AES_256_GCM_SHA384:
		return &suite{id, 32, sha512.New384, gcm}
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		return &suite{id, chacha20poly1305.KeySize, sha256.New, chacha20poly1305.New}
	}
	return nil
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// hashLen is the size of the suite's traffic secrets.
func (s *suite) hashLen() int { return s.hash().Size() }

// expand is HKDF-Expand-Label of RFC 8446 section 7.1 with an empty context.
func (s *suite) expand(secret []byte, label string, n int) ([]byte, error) {
	const prefix = "tls13 "
	info := make([]byte, 0, 4+len(prefix)+len(label))
	info = binary.BigEndian.AppendUint16(info, uint16(n))
	info = append(info, byte(len(prefix)+len(label)))
	info = append(info, prefix...)
	info = append(info, label...)
	info = append(info, 0)
	return hkdf.Expand(s.hash, secret, string(info), n)
}

const (
	ivLen  = 12
	tagLen = 16
)

// keys are those of one direction. They are always held by pointer: package fmt prints the address then.
type keys struct {
	suite  *suite
	secret []byte // traffic secret in force
	aead   cipher.AEAD
	iv     [ivLen]byte
	seq    uint64      // of the next record
	nonce  [ivLen]byte // memory for one call
	head   [headLen]byte
}

var errNoKeys = errors.New("the keys are erased")

// newKeys starts a direction with a traffic secret, which it keeps.
func newKeys(s *suite, secret []byte, seq uint64) (*keys, error) {
	if len(secret) != s.hashLen() {
		return nil, fmt.Errorf("traffic secret of %d bytes, want %d", len(secret), s.hashLen())
	}
	k := &keys{suite: s}
	err := k.use(secret)
	k.seq = seq
	return k, err
}

func (k *keys) use(secret []byte) error {
	key, err := k.suite.expand(secret, "key", k.suite.keyLen)
	if err != nil {
		return fmt.Errorf("derive a record key: %w", err)
	}
	defer clear(key)
	iv, err := k.suite.expand(secret, "iv", ivLen)
	if err != nil {
		return fmt.Errorf("derive a record IV: %w", err)
	}
	aead, err := k.suite.aead(key)
	if err != nil {
		return fmt.Errorf("make a record cipher: %w", err)
	}
	copy(k.iv[:], iv)
	clear(iv)
	k.secret, k.aead, k.seq = secret, aead, 0
	return nil
}

// update goes on to the next generation, as KeyUpdate says.
func (k *keys) update() error {
	if k.aead == nil {
		return errNoKeys
	}
	next, err := k.suite.expand(k.secret, "traffic upd", len(k.secret))
	if err != nil {
		return fmt.Errorf("derive the next traffic secret: %w", err)
	}
	clear(k.secret)
	return k.use(next)
}

// erase forgets the keys. What the cipher itself holds is out of reach, and is left to the collector.
func (k *keys) erase() {
	clear(k.secret)
	clear(k.iv[:])
	clear(k.nonce[:])
	k.secret, k.aead = nil, nil
}

// step sets the nonce for the next record and counts it. The sequence number cannot wrap: the keys are updated long before.
func (k *keys) step() []byte {
	n := k.nonce[:]
	copy(n, k.iv[:])
	binary.BigEndian.PutUint64(n[4:], binary.BigEndian.Uint64(n[4:])^k.seq)
	k.seq++
	return n
}

// seal appends one record. spare says that p[:len(p)+1] may be scribbled on, and is put back.
func (k *keys) seal(dst []byte, typ recordType, p []byte, spare bool) []byte {
	inner := len(p) + 1
	n := inner + tagLen
	dst = append(dst, byte(typeApplicationData), 3, 3, byte(n>>8), byte(n))
	copy(k.head[:], dst[len(dst)-headLen:])
	at := len(dst)
	if spare {
		p = p[:inner]
		last := p[inner-1]
		p[inner-1] = byte(typ)
		dst = k.aead.Seal(dst, k.step(), p, k.head[:])
		p[inner-1] = last
		return dst
	}
	dst = append(append(dst, p...), byte(typ))
	return k.aead.Seal(dst[:at], k.step(), dst[at:], k.head[:])
}

// open decrypts a whole record in place and returns its type and content.
func (k *keys) open(record []byte) (recordType, []byte, Alert) {
	copy(k.head[:], record)
	sealed := record[headLen:]
	p, err := k.aead.Open(sealed[:0], k.step(), sealed, k.head[:])
	if err != nil {
		return 0, nil, AlertBadRecordMAC
	}
	if len(p) > maxContent+1 {
		return 0, nil, AlertRecordOverflow
	}
	for n := len(p) - 1; n >= 0; n-- { // the content ends with its type; zeros behind it are padding
		if p[n] != 0 {
			return recordType(p[n]), p[:n], 0
		}
	}
	return 0, nil, AlertUnexpectedMessage
}
