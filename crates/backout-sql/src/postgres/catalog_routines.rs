//! The question that renders functions, procedures and aggregates.

use super::catalog::class;
use super::catalog_read::{USERS, acl, comment, depends, not_of_extension};

/// What makes an aggregate, as pg_dump writes it: of it the server gives no definition.
const AGGREGATE: &str = "'('||coalesce(nullif(pg_get_function_arguments(p.oid), ''), '*')||') ('||concat_ws(', ', \
     'SFUNC = '||aggtransfn::regproc, 'STYPE = '||format_type(aggtranstype, NULL), 'SSPACE = '||nullif(aggtransspace, 0), \
     'FINALFUNC = '||nullif(aggfinalfn, 0)::regproc, CASE WHEN aggfinalextra THEN 'FINALFUNC_EXTRA' END, \
     CASE WHEN aggfinalfn <> 0 THEN 'FINALFUNC_MODIFY = '||CASE aggfinalmodify WHEN 'r' THEN 'READ_ONLY' \
     WHEN 's' THEN 'SHAREABLE' ELSE 'READ_WRITE' END END, 'COMBINEFUNC = '||nullif(aggcombinefn, 0)::regproc, \
     'SERIALFUNC = '||nullif(aggserialfn, 0)::regproc, 'DESERIALFUNC = '||nullif(aggdeserialfn, 0)::regproc, \
     'INITCOND = '||quote_literal(agginitval), 'MSFUNC = '||nullif(aggmtransfn, 0)::regproc, \
     'MINVFUNC = '||nullif(aggminvtransfn, 0)::regproc, 'MSTYPE = '||format_type(nullif(aggmtranstype, 0), NULL), \
     'MSSPACE = '||nullif(aggmtransspace, 0), 'MFINALFUNC = '||nullif(aggmfinalfn, 0)::regproc, \
     CASE WHEN aggmfinalextra THEN 'MFINALFUNC_EXTRA' END, CASE WHEN aggmfinalfn <> 0 THEN 'MFINALFUNC_MODIFY = '||\
     CASE aggmfinalmodify WHEN 'r' THEN 'READ_ONLY' WHEN 's' THEN 'SHAREABLE' ELSE 'READ_WRITE' END END, \
     'MINITCOND = '||quote_literal(aggminitval), (SELECT format('SORTOP = OPERATOR(%I.%s)', (SELECT nspname \
     FROM pg_namespace WHERE oid = oprnamespace), oprname) FROM pg_operator WHERE oid = aggsortop), \
     CASE proparallel WHEN 's' THEN 'PARALLEL = SAFE' WHEN 'r' THEN 'PARALLEL = RESTRICTED' END, \
     CASE aggkind WHEN 'h' THEN 'HYPOTHETICAL' END)||')'";

pub(super) fn functions(condition: &str) -> String {
    format!(
        "SELECT '1255,'||p.oid||',0', 'function', json_build_object('id', p.oid::regprocedure::text, \
         'schema', quote_ident(n.nspname), 'name', quote_ident(proname), 'routine', CASE prokind WHEN 'p' \
         THEN 'PROCEDURE' WHEN 'a' THEN 'AGGREGATE' ELSE 'FUNCTION' END, \
         'owner', quote_ident(pg_get_userbyid(proowner)), 'acl', {acl}, 'comment', {comment}, 'depends on', {depends}, \
         'definition', CASE WHEN prokind <> 'a' THEN substr(pg_get_functiondef(p.oid), \
         length(format('CREATE OR REPLACE %s %I.%I', CASE prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, \
         n.nspname, proname)) + 1) ELSE (SELECT {AGGREGATE} FROM pg_aggregate g WHERE g.aggfnoid = p.oid) END) \
         FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE {condition} AND {USERS} AND {free} \
         AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = 1255 AND i.objid = p.oid AND i.deptype = 'i')",
        acl = acl("proacl", "acldefault('f', proowner)"),
        free = not_of_extension(class::PROCEDURE, "p.oid"),
        comment = comment(class::PROCEDURE, "p.oid", "0"),
        depends = depends(class::PROCEDURE, "p.oid"),
    )
}
