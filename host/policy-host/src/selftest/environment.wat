;; Traps when there is a variable.
(func (export "decide-retry") (param $job i32) (result i32)
  (call $environment (i32.const 128))
  (if (i32.load (i32.const 132)) (then unreachable))
  (call $drop (local.get $job))
  (i32.const 64))
