// Package proxy carries connections and requests: it does what package l7 decided. It accepts HBONE tunnels and plain
// connections, asks the tables, and sends requests to the hosts that package upstream chooses.
package proxy
