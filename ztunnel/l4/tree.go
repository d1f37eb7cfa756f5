package l4

import "math/rand/v2"

// tree is a persistent ordered map: a treap whose published nodes never change. Changing one entry copies the O(log n)
// nodes on its path, so the next State shares the rest with the last one. Within one edit, a node that the edit itself
// created is changed in place, so that a load of n entries does not copy its own work.
//
// The zero tree is empty. A tree value may be copied freely; the copies are independent.
type tree[K, V any] struct {
	root *node[K, V]
	size int
}

// edit identifies one batch of changes by one writer. Nodes carrying it are not published yet. It must not be empty:
// distinct zero-size variables may have equal addresses.
type edit struct{ _ byte }

type node[K, V any] struct {
	owner       *edit // immutable
	priority    uint64
	key         K
	value       V
	left, right *node[K, V]
}

// own returns a node that e may change.
func (n *node[K, V]) own(e *edit) *node[K, V] {
	if n.owner == e {
		return n
	}
	copied := *n
	copied.owner = e
	return &copied
}

// get returns the value of key.
func (t tree[K, V]) get(compare func(a, b K) int, key K) (V, bool) {
	for n := t.root; n != nil; {
		switch c := compare(key, n.key); {
		case c == 0:
			return n.value, true
		case c < 0:
			n = n.left
		default:
			n = n.right
		}
	}
	var zero V
	return zero, false
}

// set adds or replaces key's value, on behalf of e.
func (t *tree[K, V]) set(compare func(a, b K) int, e *edit, key K, value V) {
	added := false
	var insert func(n *node[K, V]) *node[K, V]
	insert = func(n *node[K, V]) *node[K, V] {
		if n == nil {
			added = true
			return &node[K, V]{owner: e, priority: rand.Uint64(), key: key, value: value}
		}
		n = n.own(e)
		switch c := compare(key, n.key); {
		case c == 0:
			n.key, n.value = key, value
		case c < 0:
			n.left = insert(n.left)
			if n.left.priority > n.priority {
				l := n.left
				n.left, l.right = l.right, n
				return l
			}
		default:
			n.right = insert(n.right)
			if n.right.priority > n.priority {
				r := n.right
				n.right, r.left = r.left, n
				return r
			}
		}
		return n
	}
	t.root = insert(t.root)
	if added {
		t.size++
	}
}

// remove takes key out, on behalf of e. An absent key changes nothing.
func (t *tree[K, V]) remove(compare func(a, b K) int, e *edit, key K) {
	if _, ok := t.get(compare, key); !ok {
		return
	}
	var cut func(n *node[K, V]) *node[K, V]
	cut = func(n *node[K, V]) *node[K, V] {
		c := compare(key, n.key)
		if c == 0 {
			return join(e, n.left, n.right)
		}
		n = n.own(e)
		if c < 0 {
			n.left = cut(n.left)
		} else {
			n.right = cut(n.right)
		}
		return n
	}
	t.root = cut(t.root)
	t.size--
}

// join merges two subtrees, all keys of a before all of b.
func join[K, V any](e *edit, a, b *node[K, V]) *node[K, V] {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		a = a.own(e)
		a.right = join(e, a.right, b)
		return a
	default:
		b = b.own(e)
		b.left = join(e, a, b.left)
		return b
	}
}

// all yields the entries in key order.
func (t tree[K, V]) all(yield func(K, V) bool) {
	var walk func(n *node[K, V]) bool
	walk = func(n *node[K, V]) bool {
		return n == nil || walk(n.left) && yield(n.key, n.value) && walk(n.right)
	}
	walk(t.root)
}
