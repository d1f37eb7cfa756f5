package coll

import (
	"reflect"

	"google.golang.org/protobuf/proto"
)

// equalFunc picks the comparison once, when a collection is made.
func equalFunc[T any](opts []Option) func(a, b T) bool {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if eq, ok := o.equal.(func(a, b T) bool); ok {
		return eq
	}
	if o.equal != nil {
		panic("coll: WithEqual is of another type than the collection")
	}
	var zero T
	switch any(zero).(type) {
	case interface{ Equal(T) bool }:
		return func(a, b T) bool { return any(a).(interface{ Equal(T) bool }).Equal(b) }
	case proto.Message:
		return func(a, b T) bool { return proto.Equal(any(a).(proto.Message), any(b).(proto.Message)) }
	}
	return func(a, b T) bool { return reflect.DeepEqual(a, b) }
}
