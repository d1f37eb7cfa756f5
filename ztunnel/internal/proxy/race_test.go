//go:build race

package proxy

// raced: the race detector makes frames larger.
const raced = true
