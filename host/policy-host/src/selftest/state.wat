;; Traps when it finds what it left behind, in a global or in memory.
(global $asked (mut i32) (i32.const 0))
(func (export "decide-retry") (param $job i32) (result i32)
  (if (global.get $asked) (then unreachable))
  (global.set $asked (i32.const 1))
  (if (i32.load (i32.const 4096)) (then unreachable))
  (i32.store (i32.const 4096) (i32.const 1))
  (call $drop (local.get $job))
  (i32.const 64))
