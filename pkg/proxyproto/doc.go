// Package proxyproto reads and writes the header of the PROXY protocol, versions 1 and 2, by which one proxy tells the next one who its
// client is. Whoever sends it is believed: it is to be read only where nobody but a proxy can connect.
package proxyproto
