// Package jwks keeps the key sets of token issuers: it fetches those that are wanted, again and again, and publishes each document
// that is different from the last. What was fetched once stays in force while fetching fails.
package jwks
