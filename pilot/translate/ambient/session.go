package ambient

import "strings"

// Session says by what proxies keep the requests of a client at one endpoint of a service. The zero value is by nothing.
type Session struct {
	// Cookie is its name, and Path what it is for; else Header is the name of a header.
	Cookie, Path, Header string
}

// SessionOf reads the labels of a service. The cookie counts before the header.
func SessionOf(labels map[string]string) Session {
	if label := labels[labelSessionCookie]; label != "" {
		name, path, given := strings.Cut(label, ":")
		if !given {
			path = "/"
		}
		return Session{Cookie: name, Path: path}
	}
	return Session{Header: labels[labelSessionHeader]}
}
