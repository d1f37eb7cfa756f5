package exchange

import (
	"strconv"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
)

// Header returns a header as Envoy's matchers see it: pseudo-header fields by their names, several values joined by a comma.
func Header(h *httpmsg.Head, key string) (string, bool) {
	if key == "" || h == nil {
		return "", false
	}
	if key[0] == ':' {
		return pseudo(h, key)
	}
	switch key {
	case "host":
		if h.Status == 0 {
			return h.Authority, h.Authority != ""
		}
	case "content-length":
		if h.ContentLength >= 0 {
			return strconv.FormatInt(h.ContentLength, 10), true
		}
		return "", false
	case "upgrade":
		return h.Upgrade, h.Upgrade != ""
	case "connection":
		if h.Upgrade != "" {
			return "upgrade", true
		}
		return "", false
	}
	return h.Header.Joined(key)
}

// OneValue is whether a name is not that of a field of the header proper, or has one value at most.
func OneValue(key string) bool {
	switch key {
	case "", "host", "content-length", "upgrade", "connection":
		return true
	}
	return key[0] == ':'
}

// First returns the first value of a header, as format commands do.
func First(h *httpmsg.Head, key string) (string, bool) {
	if h == nil || OneValue(key) {
		return Header(h, key)
	}
	return h.Header.Get(key)
}

func pseudo(h *httpmsg.Head, key string) (string, bool) {
	var v string
	switch key {
	case ":method":
		v = h.Method
	case ":path":
		v = h.Path
	case ":authority":
		v = h.Authority
	case ":scheme":
		v = h.Scheme
	case ":protocol":
		if h.Method == "CONNECT" {
			v = h.Upgrade
		}
	case ":status":
		if h.Status != 0 {
			return strconv.Itoa(h.Status), true
		}
	}
	return v, v != ""
}

// PathOnly is a path without query and fragment.
func PathOnly(path string) string {
	for i := range len(path) {
		if path[i] == '?' || path[i] == '#' {
			return path[:i]
		}
	}
	return path
}
