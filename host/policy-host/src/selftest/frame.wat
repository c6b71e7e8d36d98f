;; A policy for the retry hook that does what is put in place of "fields" below.
;;
;; Those have $id, which writes the job's id at 1024 and where it is at their argument; $drop, which
;; gives the job back; $environment, which writes where the environment is at their argument; and a
;; page of memory, where zeros at 64 are the verdict "pass".
(component
  (import "offloader:policy/types@0.1.0" (instance $types
    (export "job" (type $job (sub resource)))
    (export "[method]job.id" (func (param "self" (borrow $job)) (result string)))))
  (alias export $types "job" (type $job))
  (import "wasi:cli/environment@0.2.6" (instance $cli
    (export "get-environment" (func (result (list (tuple string string)))))))

  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $libc (instantiate $libc))
  (core func $id (canon lower (func $types "[method]job.id")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $environment (canon lower (func $cli "get-environment")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $drop (canon resource.drop $job))

  (core module $main
    (import "host" "id" (func $id (param i32 i32)))
    (import "host" "environment" (func $environment (param i32)))
    (import "host" "drop" (func $drop (param i32)))
    (import "libc" "memory" (memory 1))
    (; fields ;))
  (core instance $main (instantiate $main
    (with "host" (instance
      (export "id" (func $id))
      (export "environment" (func $environment))
      (export "drop" (func $drop))))
    (with "libc" (instance $libc))))

  (type $again (record (field "after" u64) (field "reason" (option string))))
  (type $verdict (variant
    (case "pass") (case "give-up" (option string)) (case "retry" $again)))
  (func $decide (param "job" (borrow $job)) (result $verdict)
    (canon lift (core func $main "decide-retry") (memory (core memory $libc "memory"))))

  (component $Retry
    (import "job" (type $job (sub resource)))
    (type $again-shape (record (field "after" u64) (field "reason" (option string))))
    (import "again" (type $again (eq $again-shape)))
    (type $verdict-shape (variant
      (case "pass") (case "give-up" (option string)) (case "retry" $again)))
    (import "verdict" (type $verdict (eq $verdict-shape)))
    (import "decide" (func $decide (param "job" (borrow $job)) (result $verdict)))
    (export $Job "job" (type $job))
    (export $Again "again" (type $again-shape))
    (type $Verdict-shape (variant
      (case "pass") (case "give-up" (option string)) (case "retry" $Again)))
    (export $Verdict "verdict" (type $Verdict-shape))
    (export "decide-retry" (func $decide)
      (func (param "job" (borrow $Job)) (result $Verdict))))
  (instance $retry (instantiate $Retry
    (with "job" (type $job)) (with "again" (type $again)) (with "verdict" (type $verdict))
    (with "decide" (func $decide))))
  (export "offloader:policy/retry@0.1.0" (instance $retry)))
