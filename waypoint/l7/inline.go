package l7

// mergeInline joins the values of headers that come more than once and that Envoy keeps in one place: what follows, also upstream,
// sees one value with commas.
func mergeInline(r *Request) {
	h := &r.Head.Header
	for i := 1; i < h.Len(); i++ {
		key := h.Fields()[i].Key
		if !isInline(key) {
			continue
		}
		for _, f := range h.Fields()[:i] {
			if f.Key != key {
				continue
			}
			b := r.Scratch.Bytes()
			for _, g := range h.Fields() {
				if g.Key != key || g.Value == "" {
					continue
				}
				if len(b) > 0 {
					b = append(b, ',')
				}
				b = append(b, g.Value...)
			}
			h.Set(key, r.Scratch.Keep(b))
			i--
			break
		}
	}
}

func isInline(key string) bool {
	switch key {
	case "accept", "accept-encoding", "authorization", "cache-control", "content-encoding", "content-type", "expect",
		"grpc-accept-encoding", "grpc-timeout", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since",
		"origin", "pragma", "referer", "te", "user-agent", "via", "x-client-trace-id", "x-request-id",
		"x-forwarded-client-cert", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto",
		"access-control-request-headers", "access-control-request-method":
		return true
	}
	return false
}
