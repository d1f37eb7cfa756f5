package netx

// Lender is a connection that needs no memory of its reader's while there is nothing to read.
type Lender interface {
	// ReadLent waits for bytes and returns n of them, one at least, at the start of a buffer of [Pool] of size bytes or more, which it
	// borrows only then. It is the caller's to give back. With an error there is no buffer; io.EOF is the end.
	ReadLent(size int) (b []byte, n int, err error)
}
