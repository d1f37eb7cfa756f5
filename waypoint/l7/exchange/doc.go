// Package exchange is what filters, matchers and formatters see of a connection and of a request on it.
package exchange
