package tlsrec

// handshake takes a record's worth of handshake messages, which may begin and end anywhere.
func (c *Conn) handshake(p []byte) error {
	rx := &c.rx
	if len(p) == 0 {
		return refuse(AlertUnexpectedMessage, "an empty handshake record")
	}
	for len(p) > 0 {
		if rx.skip > 0 {
			n := min(rx.skip, len(p))
			rx.skip -= n
			p = p[n:]
			continue
		}
		rx.message[rx.have] = p[0]
		rx.have++
		p = p[1:]
		if rx.have < 4 {
			continue
		}
		n := int(rx.message[1])<<16 | int(rx.message[2])<<8 | int(rx.message[3])
		switch {
		case rx.message[0] == messageNewSessionTicket && c.client:
			if n == 0 || n > maxTicket {
				return refuse(AlertDecodeError, "a session ticket of wrong length")
			}
			rx.skip, rx.have = n, 0 // sessions are not resumed
		case rx.message[0] == messageKeyUpdate:
			if n != 1 {
				return refuse(AlertDecodeError, "a KeyUpdate of wrong length")
			}
			if rx.have == headLen {
				if err := c.keyUpdate(len(p) > 0); err != nil {
					return err
				}
			}
		default:
			return refuse(AlertUnexpectedMessage, "a handshake message that does not belong here")
		}
	}
	return nil
}

// keyUpdate goes on to the peer's next keys. The answer, if asked for, goes with the next data: RFC 8446 section 4.6.3 wants it
// before that, and the one who reads never writes.
func (c *Conn) keyUpdate(more bool) error {
	rx := &c.rx
	request := rx.message[4]
	rx.have = 0
	switch {
	case more:
		return refuse(AlertUnexpectedMessage, "a message behind a KeyUpdate under the old keys")
	case request > 1:
		return refuse(AlertIllegalParameter, "a KeyUpdate that asks for something unknown")
	}
	if rx.updates++; rx.updates > freeUpdates+rx.records/recordsPerUpdate {
		return refuse(AlertUnexpectedMessage, "too many KeyUpdates")
	}
	if err := rx.keys.update(); err != nil {
		return refuse(AlertInternalError, err.Error())
	}
	if request == 1 {
		c.updateOwed.Store(true)
	}
	return nil
}
