// Package handover moves what an old instance of the node proxy has open to its successor on the same node: a Unix socket in a
// directory that only root may enter, on which sockets travel by SCM_RIGHTS. docs/upgrade.md has the design.
//
// wire.go is the messages, door.go the directory and who may come in, sender.go and receiver.go the two ends. What is inside an
// offer is the business of whoever makes and takes it.
package handover
