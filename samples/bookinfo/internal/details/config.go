package details

import "github.com/isthmus-mesh/isthmus/samples/internal/env"

// Config is the service's configuration.
type Config struct {
	// External fetches the book from the Google Books API instead of answering
	// from what is built in (details v2).
	External bool
	// Plaintext makes that call over HTTP on port 80 instead of HTTPS on 443.
	Plaintext bool
}

// LoadConfig reads ENABLE_EXTERNAL_BOOK_SERVICE and DO_NOT_ENCRYPT.
func LoadConfig(src env.Source) Config {
	return Config{
		External:  src.Bool("ENABLE_EXTERNAL_BOOK_SERVICE", false),
		Plaintext: src.Bool("DO_NOT_ENCRYPT", false),
	}
}
