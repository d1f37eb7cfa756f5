package exchange

import "unsafe"

// Scratch is memory for strings that live as long as a request. After the first few requests it is big enough and nothing is
// allocated any more. A string must not outlive the next Reset.
type Scratch struct{ buf []byte }

// Reset gives up all strings.
func (s *Scratch) Reset() { s.buf = s.buf[:0] }

// Bytes returns an empty slice to append to. Only one may be in use: pass what became of it to Keep.
func (s *Scratch) Bytes() []byte {
	n := len(s.buf)
	return s.buf[n:n:cap(s.buf)]
}

// Keep makes what was appended to Bytes a string.
func (s *Scratch) Keep(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	n := len(s.buf)
	if n+len(b) <= cap(s.buf) && &s.buf[:n+1][n] == &b[0] {
		s.buf = s.buf[:n+len(b)]
	} else {
		// b has outgrown the memory: a bigger one takes over, enough for a request like this one. Strings in the old one stay valid.
		s.buf = append(make([]byte, 0, max(256, 2*(cap(s.buf)+len(b)))), b...)
		b = s.buf
	}
	return unsafe.String(&b[0], len(b))
}

// Lower is s with ASCII letters in lower case.
func (s *Scratch) Lower(v string) string {
	for i := range len(v) {
		if c := v[i]; 'A' <= c && c <= 'Z' {
			b := append(s.Bytes(), v...)
			for ; i < len(b); i++ {
				if c := b[i]; 'A' <= c && c <= 'Z' {
					b[i] = c + 'a' - 'A'
				}
			}
			return s.Keep(b)
		}
	}
	return v
}

// Concat joins strings.
func (s *Scratch) Concat(parts ...string) string {
	b := s.Bytes()
	for _, p := range parts {
		b = append(b, p...)
	}
	return s.Keep(b)
}
