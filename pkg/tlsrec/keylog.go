package tlsrec

import (
	"bytes"
	"encoding/hex"
	"fmt"
)

// keyLog takes the traffic secrets of one handshake from crypto/tls, which offers them to Config.KeyLogWriter only.
type keyLog struct{ client, server []byte }

// Write implements io.Writer for lines of the form "LABEL random secret". It breaks the rule that a Writer leaves its argument
// alone: the line is a heap copy of a secret that nobody reads again, so it is wiped.
func (l *keyLog) Write(line []byte) (int, error) {
	defer clear(line)
	fields := bytes.Fields(line)
	if len(fields) != 3 {
		return len(line), nil
	}
	var into *[]byte
	switch string(fields[0]) {
	case "CLIENT_TRAFFIC_SECRET_0":
		into = &l.client
	case "SERVER_TRAFFIC_SECRET_0":
		into = &l.server
	default:
		return len(line), nil
	}
	secret := make([]byte, hex.DecodedLen(len(fields[2])))
	if _, err := hex.Decode(secret, fields[2]); err != nil {
		return 0, fmt.Errorf("traffic secret: %w", err)
	}
	*into = secret
	return len(line), nil
}

func (l *keyLog) erase() {
	clear(l.client)
	clear(l.server)
	l.client, l.server = nil, nil
}
