// Package accesslog writes one line for each request and connection, in Envoy's formats. A format is compiled once; lines are made
// on the goroutine that served, and written by a goroutine of the file, so that a slow file delays nobody: what it cannot take in
// time is dropped and counted.
package accesslog
