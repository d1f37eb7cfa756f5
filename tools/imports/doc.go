// Package imports holds the test of the rules by which the parts of the monorepo may know each other.
// ARCHITECTURE.md tells the rules; the test is what keeps them.
package imports
