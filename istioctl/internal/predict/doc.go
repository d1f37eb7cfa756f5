// Package predict tells what a change of objects would do, before it is made: to what every proxy is sent, and to the requests that go
// through them. Both states are worked out as in istioctl why, by the code that a mesh runs.
package predict
