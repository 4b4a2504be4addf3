"""In place of the package manager: a module of Ansible's that installs nothing, and gives its arguments back."""

from __future__ import annotations

import json

from ansible.module_utils.basic import AnsibleModule

module = AnsibleModule(
    argument_spec={
        "name": {"type": "list", "elements": "str"},
        "state": {"type": "str"},
        "update_cache": {"type": "bool"},
        "cache_valid_time": {"type": "int"},
    },
    supports_check_mode=True,
)
module.exit_json(changed=True, asked=json.loads(module.jsonify(module.params)), manager="apt")
