// Package field names the lines that server and client print, NAME=value.
package field

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Names of lines. Suites look for them.
const (
	StatusCode     = "StatusCode"
	ServiceVersion = "ServiceVersion"
	ServicePort    = "ServicePort"
	Host           = "Host"
	URL            = "URL"
	ForwarderURL   = "Url"
	Message        = "Echo"
	Cluster        = "Cluster"
	Method         = "Method"
	Proto          = "Proto"
	Alpn           = "Alpn"
	IP             = "IP"
	Hostname       = "Hostname"
	RequestHeader  = "RequestHeader"
	ResponseHeader = "ResponseHeader"
	Header         = "Header"
	Latency        = "Latency"
	Protocol       = "Protocol"
	TLSVersion     = "Version"
	Cipher         = "Cipher"
	ServerName     = "ServerName"
)

// Lines collects lines. It has one owner, who may hand it on.
type Lines struct{ out []byte }

// Add appends a line. Values cannot hold line breaks.
func (l *Lines) Add(name, value string) {
	l.out = fmt.Appendf(l.out, "%s=%s\n", name, strings.NewReplacer("\n", " ", "\r", " ").Replace(value))
}

// Headers appends a line per value, in order of names.
func (l *Lines) Headers(name string, headers http.Header) {
	keys := make([]string, 0, len(headers))
	for key := range headers {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		for _, value := range headers[key] {
			l.Add(name, key+":"+value)
		}
	}
}

// String is all lines.
func (l *Lines) String() string { return string(l.out) }
